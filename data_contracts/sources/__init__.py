"""Where labelled rows come from, one seam."""
