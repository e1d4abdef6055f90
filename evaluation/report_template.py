# ruff: noqa: E501
"""The report's page as a Jinja template (autoescaped). No script, no external resource: the page forbids both."""

STYLE = """
:root { color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1b1f24; --soft: #59616b; --line: #dcdfe3; --track: #eceef0;
  --base: #8a919a; --champion: #2a6fc9; --candidate: #d4581c; --best: #7d5bb5; --shown: #8a919a; --warning: #8a5a00;
  --pass: #1d7a46; --block: #b3261e; --inconclusive: #8a5a00;
  --pass-bg: #e5f4eb; --block-bg: #fbe9e7; --inconclusive-bg: #fdf2dc; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --card: #1d2125; --ink: #e8eaed; --soft: #a2aab4; --line: #353b42; --track: #2a2f35;
  --base: #8d959f; --champion: #6ea8f0; --candidate: #f08a52; --best: #b39ae0; --shown: #8d959f; --warning: #f0be60;
  --pass: #6cd097; --block: #ff8a80; --inconclusive: #f0be60;
  --pass-bg: #16301f; --block-bg: #3a1c1a; --inconclusive-bg: #352a12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.15rem; font-weight: 600; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .25rem; }
h3 { font-size: .95rem; margin: 1.25rem 0 .25rem; }
p { margin: .25rem 0 .75rem; }
.soft { color: var(--soft); font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.25rem;
  margin: 0 0 1rem; }
.verdict { border-width: 0 0 0 .5rem; border-style: solid; }
.verdict .word { font-size: 1.9rem; line-height: 1.2; font-weight: 700; margin: 0; }
.verdict ul { margin: .75rem 0 0; padding-left: 1.2rem; }
.verdict.pass { background: var(--pass-bg); border-color: var(--pass); } .pass .word { color: var(--pass); }
.verdict.block { background: var(--block-bg); border-color: var(--block); } .block .word { color: var(--block); }
.verdict.inconclusive { background: var(--inconclusive-bg); border-color: var(--inconclusive); }
.inconclusive .word { color: var(--inconclusive); }
.badge { font-weight: 600; white-space: nowrap; }
.badge.pass { color: var(--pass); } .badge.block { color: var(--block); }
.badge.inconclusive { color: var(--inconclusive); } .badge.warning { color: var(--warning); }
.badge.shown { color: var(--soft); font-weight: 400; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 1rem; margin: 0 0 1rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
.tile .big { font-size: 1.75rem; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums; }
.row { display: grid; grid-template-columns: 12rem 1fr 17.5rem; gap: .75rem; align-items: center; min-height: 2rem; }
.row .value { font-size: .875rem; font-variant-numeric: tabular-nums; text-align: right; }
.row.axis { min-height: 1.25rem; }
.row svg { width: 100%; height: 2rem; display: block; overflow: visible; }
.row.axis svg { height: 1.25rem; }
.bars { display: grid; grid-template-columns: 6.5rem 1fr 4.5rem; gap: .2rem .75rem; align-items: center;
  margin: 0 0 .9rem; font-size: .875rem; }
.bars .name { color: var(--soft); }
.bars .track { background: var(--track); border-radius: .2rem; height: .8rem; }
.bars .fill { height: 100%; border-radius: .2rem; }
.bars .value { font-variant-numeric: tabular-nums; white-space: nowrap; }
.fill.best { background: var(--best); } .fill.base { background: var(--base); } .fill.champion { background: var(--champion); }
.fill.candidate { background: var(--candidate); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 600; }
td.wrap { white-space: normal; text-align: left; min-width: 14rem; }
.heat td { font-weight: 600; }
.heat-3 { background: var(--block); color: var(--card); } .heat-2 { background: var(--block-bg); color: var(--block); }
.heat-1 { color: var(--block); } .heat1 { color: var(--pass); }
.heat2 { background: var(--pass-bg); color: var(--pass); } .heat3 { background: var(--pass); color: var(--card); }
td.lost { color: var(--block); font-weight: 600; } td.gained { color: var(--pass); font-weight: 600; }
.flip { border-top: 1px solid var(--line); padding: .6rem 0; overflow-wrap: anywhere; }
.flip dl, .facts { display: grid; grid-template-columns: 6.5rem 1fr; gap: .1rem .75rem; margin: .25rem 0 0; font-size: .875rem; }
.facts { grid-template-columns: 10rem 1fr; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
code { font: .8125rem ui-monospace, monospace; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; padding: .35rem 0; }
.curve { display: grid; grid-template-columns: 3.5rem 1fr; gap: .25rem .5rem; font-size: .8125rem; color: var(--soft); }
.curve svg { width: 100%; height: 9rem; border-left: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.curve .y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; }
.curve .x { grid-column: 2; display: flex; justify-content: space-between; }
@media (max-width: 40rem) {
  main { padding: .5rem; } section { padding: .75rem .9rem; }
  .row { grid-template-columns: 1fr auto; gap: 0 .75rem; margin-bottom: .5rem; }
  .row > svg { grid-column: 1 / -1; grid-row: 2; } .row.axis > svg { grid-row: auto; }
  .row.axis .label, .row.axis .value { display: none; }
  .bars { grid-template-columns: 5.5rem 1fr 3.75rem; }
  th, td { padding: .3rem; } .tiles { gap: .5rem; }
  .flip dl, .facts { grid-template-columns: 1fr; } dd { margin-bottom: .35rem; } }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ word }}: {{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>Evaluation: <bdi>{{ title }}</bdi></h1>

<section class="verdict {{ decision.verdict }}">
<p class="word">{{ mark }} {{ word }}</p>
<p>{{ sentence }}</p>
{% if decision.override_by %}<p><strong>Overridden by <bdi>{{ decision.override_by }}</bdi></strong>:
<bdi>{{ decision.override_reason or "no reason given" }}</bdi></p>{% endif %}
<ul>{% for reason in decision.reasons %}<li><bdi>{{ reason }}</bdi></li>{% endfor %}</ul>
{% if warnings %}<p><strong class="badge warning">! Warnings</strong>, which decide nothing:</p>
<ul>{% for warning in warnings %}<li><bdi>{{ warning }}</bdi></li>{% endfor %}</ul>{% endif %}
</section>

<div class="tiles">
{% for tile in tiles %}
<div class="tile"><div class="soft"><bdi>{{ tile.suite }}</bdi> · {{ tile.n }} items</div>
<div class="big">{{ tile.candidate }}</div>
<div class="soft">champion {{ tile.champion }} · lost {{ tile.lost }}, gained {{ tile.gained }}</div></div>
{% endfor %}
</div>

<section>
<h2>Difference to the reference models</h2>
<p class="soft">Candidate minus reference in percentage points, with its one-sided lower and upper bounds.
The dashed line is what the lower bound must exceed: the margin for "no worse", the least gain for "better".
Incidents are a list, not a sample: they have no bounds. What the policy does not judge is shown without a line.</p>
{% for row in forest %}
<div class="row"><div class="label"><bdi>{{ row.suite }}</bdi> <span class="soft">vs {{ row.against }}</span></div>
<svg role="img" aria-label="{{ row.text }}">
<line x1="0" x2="100%" y1="50%" y2="50%" stroke="var(--track)" stroke-width="1"/>
<line x1="{{ zero }}%" x2="{{ zero }}%" y1="0" y2="100%" stroke="var(--line)" stroke-width="1.5"/>
{% if row.limit is not none %}<line x1="{{ row.limit }}%" x2="{{ row.limit }}%" y1="8%" y2="92%" stroke="var(--soft)"
 stroke-width="1.5" stroke-dasharray="3 3"/>{% endif %}
<line x1="{{ row.low }}%" x2="{{ row.high }}%" y1="50%" y2="50%" stroke="var(--{{ row.verdict }})" stroke-width="3"
 stroke-linecap="round"/>
<circle cx="{{ row.at }}%" cy="50%" r="5.5" fill="var(--{{ row.verdict }})"/>
</svg>
<div class="value">{{ row.text }} <span class="badge {{ row.verdict }}">{{ row.mark }}</span></div></div>
{% endfor %}
<div class="row axis"><div class="label"></div>
<svg aria-hidden="true">{% for tick in ticks %}<text x="{{ tick.at }}%" y="13" font-size="12" text-anchor="{{ tick.anchor }}"
 fill="var(--soft)">{{ tick.text }}</text>{% endfor %}</svg>
<div class="value soft">points</div></div>
</section>

{{ scales | safe }}
<section>
<h2>Share of items answered as required</h2>
{% for group in means %}
<h3><bdi>{{ group.suite }}</bdi></h3>
<div class="bars">{% for bar in group.bars %}
<div class="name">{{ bar.model }}</div>
<div class="track"><div class="fill {{ bar.model }}" style="width: {{ bar.width }}%"></div></div>
<div class="value">{{ bar.text }}</div>{% endfor %}</div>
{% endfor %}
{% if same_champion %}<p class="soft">The champion is the base: this is the first round.</p>{% endif %}
</section>

{% if slices %}
<section>
<h2>What changed, by skill and topic</h2>
<p class="soft">Lost, gained and the one-sided bounds (points) against the champion. A margin stands where the policy judges the
slice by itself; a warning means that more was lost than chance explains (sign test, Holm's correction over all slices shown).</p>
<div class="scroll"><table>
<thead><tr><th>suite, slice</th><th>items</th><th>lost</th><th>gained</th><th>candidate</th><th>champion</th><th>base</th>{% if with_best %}<th>best</th>{% endif %}<th>bounds</th><th>margin</th></tr></thead>
<tbody>{% for s in slices %}<tr><td><bdi>{{ s.suite }}</bdi>: <bdi>{{ s.slice }}</bdi></td><td>{{ s.n }}</td><td{% if s.lost %} class="lost"{% endif %}>{{ s.lost }}</td>
<td{% if s.gained %} class="gained"{% endif %}>{{ s.gained }}</td><td>{{ s.means.candidate }}</td><td>{{ s.means.champion }}</td><td>{{ s.means.base }}</td>{% if with_best %}<td>{{ s.means.get("best", "-") }}</td>{% endif %}<td>{{ s.bounds }}</td><td>{{ s.margin }} <span class="badge {{ s.verdict }}">{{ s.word }}</span></td></tr>{% endfor %}</tbody>
</table></div>
</section>
{% endif %}

<section>
<h2>Items that flipped against the champion</h2>
{% for group in flips %}
<details{% if group.open %} open{% endif %}>
<summary>{{ group.title }}</summary>
{% for flip in group.rows %}
<div class="flip"><div class="soft"><bdi>{{ flip.id }}</bdi>{% if flip.slice %} · <bdi>{{ flip.slice }}</bdi>{% endif %}</div>
<dl>{% for name, text in flip.lines %}<dt>{{ name }}</dt><dd><bdi>{{ text }}</bdi></dd>{% endfor %}</dl></div>
{% endfor %}
{% if group.more %}<p class="soft">and {{ group.more }} more</p>{% endif %}
</details>
{% else %}<p>No item changed.</p>{% endfor %}
</section>

{% if heat %}
<section>
<h2>Forgetting over the rounds</h2>
<p class="soft">Each round's candidate minus the base, in percentage points of the items passed. A column that sinks is
forgetting that creeps from round to round.</p>
<div class="scroll"><table class="heat">
<thead><tr><th>round</th>{% for suite in heat.suites %}<th><bdi>{{ suite }}</bdi></th>{% endfor %}<th>outcome</th></tr></thead>
<tbody>{% for row in heat.rows %}<tr><td>{{ row.label }}</td>{% for cell in row.cells %}<td class="heat{{ cell.shade }}">{{ cell.text }}</td>{% endfor %}
<td>{{ row.outcome }}</td></tr>{% endfor %}</tbody>
</table></div>
</section>
{% endif %}

{% if sampled %}
<section>
<h2>Several answers at the served temperature</h2>
<p class="soft">{{ sampled[0].k }} answers to each item at temperature {{ sampled[0].temperature }}; the interval is bootstrapped by item (95 %). Unsure: not all
of the candidate's answers scored alike. Shown, not gated.</p>
<div class="scroll"><table>
<thead><tr><th>suite</th><th>items</th><th>candidate</th><th>champion</th><th>difference</th><th>unsure</th></tr></thead>
<tbody>{% for row in sampled %}<tr><td><bdi>{{ row.suite }}</bdi></td><td>{{ row.n }}</td><td>{{ row.candidate }}</td><td>{{ row.champion }}</td><td>{{ row.difference }}</td>
<td>{{ row.unsure }}</td></tr>{% endfor %}</tbody>
</table></div>
</section>
{% endif %}

{% if negative_flips %}
<section>
<h2>Negative flips</h2>
<p class="soft">Items the reference had right and the candidate has wrong, as a share of all items, with the exact one-sided
upper bound (Clopper-Pearson).</p>
<div class="scroll"><table>
<thead><tr><th>suite</th><th>items</th><th>newly wrong</th><th>rate</th><th>upper</th><th>allowed below</th><th></th></tr></thead>
<tbody>{% for row in negative_flips %}<tr><td><bdi>{{ row.suite }}</bdi> <span class="soft">vs {{ row.against }}</span></td><td>{{ row.n }}</td><td>{{ row.lost }}</td><td>{{ row.share }}</td>
<td>{{ row.high }}</td><td>{{ row.limit }}</td><td><span class="badge {{ row.verdict }}">{{ row.word }}</span></td></tr>{% endfor %}</tbody>
</table></div>
</section>
{% endif %}

{% if fragile %}
<section>
<h2>Fragility</h2>
<p>{{ fragile.share }} {{ fragile.bounds }}: {{ fragile.reason }}.</p>
<p class="soft">Items asked again with typos, in other case, with other spaces or in other words; one-sided exact bounds. A model
that is always wrong is not fragile: read it beside the suites.</p>
</section>
{% endif %}

{% if likelihoods %}
<section>
<h2>Log-likelihood of the reference answers</h2>
<p class="soft">Mean change in nats per token, candidate minus reference model; below zero the reference answer became less
likely. One-sided bounds of the paired t test; the lower one must exceed the margin where the policy sets one.</p>
<div class="scroll"><table>
<thead><tr><th>suite</th><th>items</th><th>mean change</th><th>lower</th><th>upper</th><th>margin</th><th></th></tr></thead>
<tbody>{% for row in likelihoods %}<tr><td><bdi>{{ row.suite }}</bdi> <span class="soft">vs {{ row.against }}</span></td><td>{{ row.n }}</td><td>{{ row.mean }}</td><td>{{ row.low }}</td>
<td>{{ row.high }}</td><td>{{ row.limit }}</td><td><span class="badge {{ row.verdict }}">{{ row.word }}</span></td></tr>{% endfor %}</tbody>
</table></div>
</section>
{% endif %}

{% if artifact %}
<section>
<h2>Training</h2>
{% if curve %}
<p class="soft">Loss of each optimiser step{% if curve.held_out %}; dashed, of the rows that did not train (nats per token, best {{ curve.best }}){% endif %}.</p>
<div class="curve"><div class="y"><span>{{ curve.high }}</span><span>{{ curve.low }}</span></div>
<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="loss from {{ curve.first }} to {{ curve.last }}">
<polyline points="{{ curve.points }}" fill="none" stroke="var(--candidate)" stroke-width="2" vector-effect="non-scaling-stroke"/>
{% if curve.held_out %}
<polyline class="held-out" points="{{ curve.held_out }}" fill="none" stroke="var(--champion)" stroke-width="2" stroke-dasharray="5 3" vector-effect="non-scaling-stroke"/>
{% endif %}
</svg><div class="x"><span>step 1</span><span>{{ curve.steps }}</span></div></div>
{% endif %}
<dl class="facts">{% for name, text in training %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
</section>
{% endif %}

{% if snapshot %}
<section>
<h2>Data it was taught with</h2>
<div class="scroll"><table>
<thead><tr><th>rows</th><th>number</th></tr></thead>
<tbody>{% for name, number in data_rows %}<tr><td><bdi>{{ name }}</bdi></td><td>{{ number }}</td></tr>{% endfor %}</tbody>
</table></div>
</section>
{% endif %}

<section>
<h2>What it took</h2>
<dl class="facts">{% for name, text in cost %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
</section>

<section>
<h2>Lineage and policy</h2>
<dl class="facts">{% for name, text in lineage %}<dt>{{ name }}</dt><dd><code>{{ text }}</code></dd>{% endfor %}</dl>
<h3>How to read this</h3>
<p class="soft">All models answered the same items greedily; items are compared in pairs. Bounds are Tango's score bounds for
paired proportions at level {{ alpha }}. Whether a suite is large enough is decided from its size and the expected share of
changing items before any result is read; too small is inconclusive. Every suite must pass. Incidents are a list of required
behaviours, not a sample.</p>
</section>
</main>
</body>
</html>
"""
