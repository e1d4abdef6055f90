"""Where labelled rows come from: one seam, our store, and JSON Lines in and out."""
