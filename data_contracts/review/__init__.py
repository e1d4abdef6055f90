"""The review queue's rules: what people are shown, when their labels agree, and what an agreed label changes.

guidelines.py   what labellers are told, and the words they may use (YAML)
rules.py        when labels agree, what they amount to, what may be answered
alpha.py        Krippendorff's alpha
desk.py         next, label, adjudicate: one transaction each
effects.py      what a settled item changes: quarantine, feedback, incidents
items.py        from held rows, incidents and requests to items
stats.py        gold agreement and alpha, per labeller and per rule
operator.py     release and drop without the queue
label_studio.py, label_studio_http.py   the same items in Label Studio
"""
