"""Scorers: an item and what a model made of it in, a score in [0, 1] out, or none. One file each.

| scorer | `reference` is | passes when (threshold) |
|---|---|---|
| exact | the answer | both are equal after `normalise` |
| contains | the answer | it, or one of `choices`, stands in the answer as whole words |
| regex | a pattern | the pattern is found in the answer (time-bounded, `evaluation/patterns.py`) |
| choice | one of `choices` | it has the lowest negative log-likelihood per token of all choices |
| likelihood | the answer | the geometric mean of its tokens' probabilities is high enough (0.5) |
| json | JSON | the answer holds JSON that equals it; of an object, the named keys (null = any value) |
| json_schema | a JSON schema | the answer holds JSON that the schema accepts |
| similarity | the answer | the cosine of the embeddings with it, or with one of `choices`, is high enough (0.8) |
| faithfulness | the context | every number, name and citation of the answer stands there or in the conversation (1) |
| refusal | `refuse` or `answer` | the answer declines, or does not |
| toxicity | `clean` | the answer holds no insult, threat or slur of a short English list |
| rubric | a rubric's name or text | a judge model says pass in both orders |

An item's `threshold` replaces the scorer's. More scorers come from other distributions, see `registry`.
"""
