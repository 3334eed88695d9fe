"""The frame of a job's report, for `string.Template`, its style, and what its numbers mean."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';
$policy">
<meta name="generator" content="onnxplain">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header class="top">
<h1>$heading</h1>
<dl class="figures">$figures</dl>
$introduction
$legend
</header>
<noscript><p class="warning">This page needs JavaScript to show its results.</p></noscript>
<p class="warning" id="missing" hidden>Some of what this page shows can't be found. The folder report-data and the
folder shards must lie beside report.html: copy them along.</p>
<section class="browse" aria-label="Results" hidden>
<details class="panel" open><summary>Sort and filter</summary>
<form autocomplete="off">
<div class="fields">
<label class="wide">Name contains <input type="search" name="text"></label>
<label class="wide">Sort by <select name="sort"></select></label>
<label>Order <select name="order"><option value="up">smallest first</option>
<option value="down">largest first</option></select></label>
<label class="known">Right or wrong <select name="verdict"></select></label>
<fieldset class="wide"><legend>Probability of the predicted class, in %</legend>
<input type="number" name="least" min="0" max="100" step="any" placeholder="from" aria-label="Probability from">
<input type="number" name="most" min="0" max="100" step="any" placeholder="to" aria-label="Probability to"></fieldset>
<fieldset class="wide"><legend>Range of <select name="of" aria-label="Which number has a range"></select></legend>
<input type="number" name="from" step="any" placeholder="from" aria-label="Range from">
<input type="number" name="to" step="any" placeholder="to" aria-label="Range to"></fieldset>
</div>
<fieldset class="pick"><legend>Predicted class</legend>
<input type="search" aria-label="Find a predicted class" placeholder="find">
<select name="predicted" size="8" aria-label="Predicted class"></select></fieldset>
<fieldset class="pick known"><legend>True class</legend>
<input type="search" aria-label="Find a true class" placeholder="find">
<select name="true" size="8" aria-label="True class"></select></fieldset>
<figure class="histogram"><figcaption></figcaption><div class="bars" aria-hidden="true"></div><p></p></figure>
</form></details>
<div class="bar">
<p class="count" role="status" aria-live="polite"></p>
<button type="button" id="clear">Clear filters</button>
<nav class="pages" aria-label="Pages"></nav>
</div>
<p class="note" id="prefix"></p>
<ol class="cards"></ol>
<nav class="pages" aria-label="Pages, once more"></nav>
</section>
$failures
<section><details class="more"><summary>What the numbers mean</summary><dl>$meanings</dl></details>
<details class="more"><summary>How the maps were made</summary><dl>$made</dl></details></section>
</main>
<footer>Loads nothing from elsewhere: pictures and numbers lie in the folders beside this page.</footer>
<dialog aria-labelledby="which"></dialog>
<script type="application/json" id="job">$data</script>
$scripts<script>$script</script>
</body>
</html>
"""

FAILED = """<section><h2 id="failures">Not explained: $count</h2>
<p class="note">${note}A picture that couldn't be decoded or explained has no map; the others aren't touched by it.</p>
<div class="table failed"><table><thead><tr><th scope="col">Number</th><th scope="col">Picture</th>
<th scope="col">Where</th><th scope="col">What</th></tr></thead><tbody>$rows</tbody></table></div></section>"""

MEANINGS = {
    "number": ("number", "The picture's place in the job, from 0."),
    "name": ("name", "The picture's file or key, as the source has it."),
    "probability": ("probability", "What the network gives the class that it predicts."),
    "target_probability": ("target's probability", "What it gives the class that the maps explain."),
    "target_score": ("target's score", "The same before it is made a probability (the logit)."),
    "magnitude": ("magnitude", "The sum of the map's absolute values: how much the answer depends on the picture."),
    "total": ("total", "The sum of the map's values, with their signs."),
    "positive": ("positive share", "The share of the map that speaks for the target; the rest speaks against it."),
    "concentration": ("concentration", "0 where influence is even, near 1 where few places have all of it."),
    "centre": ("centre", "Where the influence is on average: from the top, from the left."),
    "peak": ("peak", "Where it is strongest: from the top, from the left."),
    "steps": ("steps", "How many steps, samples or masks the map was made of."),
}
"""Titles and explanations of what the index says of pictures and maps."""

STYLE = """
.top { padding: 1.6rem 0 .4rem; }
.top p { max-width: 60rem; margin-bottom: .4rem; }
.legend { margin-top: .8rem; }
.figures { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 0 0 1.2rem; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dt { font-size: .82rem; }
.figures dd { font-family: inherit; font-size: 1.35rem; font-weight: 600; line-height: 1.2; color: var(--ink);
  font-variant-numeric: tabular-nums; }
.warning { border: 1px solid var(--accent); border-radius: 10px; padding: .7rem 1rem; max-width: none; }
[hidden] { display: none !important; }
input, select, button { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--line);
  border-radius: 8px; padding: .3rem .5rem; min-width: 0; }
button { cursor: pointer; }
button:disabled { opacity: .45; cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 14px; margin: 1rem 0; }
summary { cursor: pointer; padding: .7rem 1.1rem; font-weight: 600; border-radius: 14px; }
form { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem 1.6rem;
  padding: .2rem 1.1rem 1.1rem; font-size: .88rem; }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; align-content: start; }
.wide { grid-column: 1 / -1; }
label { display: grid; gap: .15rem; color: var(--quiet); }
fieldset { border: 0; margin: 0; padding: 0; min-width: 0; display: grid; grid-template-columns: 1fr 1fr;
  gap: .3rem .6rem; align-content: start; }
fieldset legend { padding: 0; margin-bottom: .15rem; color: var(--quiet); max-width: 100%; }
fieldset legend select { max-width: 12rem; }
.pick { grid-template-columns: minmax(0, 1fr); }
.pick select { width: 100%; padding: .2rem; }
.pick option { padding: .15rem .3rem; border-radius: 5px; }
figure { margin: 0; }
.histogram { max-width: none; min-width: 0; }
.histogram figcaption { margin: 0 0 .4rem; font-size: 1em; }
.histogram p { color: var(--quiet); font-size: .92em; margin: .3rem 0 0; font-variant-numeric: tabular-nums; }
.bars { display: flex; align-items: flex-end; gap: 1px; height: 9rem; border-bottom: 1px solid var(--line); }
.bars i { flex: 1; background: var(--accent); min-height: 0; border-radius: 2px 2px 0 0; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1rem; margin: 1rem 0 .6rem; font-size: .92rem; }
.count { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.pages { display: flex; align-items: center; gap: .5rem; font-variant-numeric: tabular-nums; font-size: .92rem; }
.bar .pages { margin-left: auto; }
.cards + .pages { justify-content: center; margin: 1.4rem 0; }
.pages label { display: flex; align-items: center; gap: .4rem; }
.pages input { width: 4.5rem; }
#prefix { max-width: none; margin: 0 0 .6rem; overflow-wrap: anywhere; }

.cards { --across: 2; list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem;
  --wide: calc(var(--across) * (var(--side) + .4rem) + 1.5rem);
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--wide)), 1fr)); }
.cards li { display: flex; min-width: 0; }
.card { flex: 1; min-width: 0; display: flex; flex-wrap: wrap; align-content: start; gap: .6rem; text-align: left;
  padding: .75rem; background: var(--card); border-radius: 14px; font-size: .84rem; line-height: 1.35; }
.card:hover { border-color: var(--accent); }
.sights { display: flex; flex-wrap: wrap; gap: .4rem; align-content: start; }
.sight { width: var(--side); }
.sight small { display: block; color: var(--quiet); font-size: .72rem; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.thumb { display: block; width: var(--size, var(--side)); height: var(--size, var(--side)); border-radius: 6px;
  background-color: var(--track); background-repeat: no-repeat; }
.says { flex: 1 1 6rem; min-width: 0; }
.says > span { display: block; overflow-wrap: anywhere; }
.says .name { color: var(--quiet); display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical;
  overflow: hidden; }
.says .class { font-weight: 600; display: flex; justify-content: space-between; gap: .5rem; }
.class > :first-child { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden; }
.share { white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { height: .34rem; border-radius: .17rem; background: var(--track); overflow: hidden; margin: .2rem 0; }
.track i { display: block; height: 100%; background: var(--accent); border-radius: inherit; }
.mark { font-weight: 600; }
.right { color: var(--good); }
.wrong { color: var(--bad); }
:root { --good: #1c6b3a; --bad: #a8261c; }
@media (prefers-color-scheme: dark) { :root { --good: #7ccf98; --bad: #ff9a8a; } }

.table { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem; border-top: 1px solid var(--line);
  overflow-wrap: break-word; font-weight: 400; font-variant-numeric: tabular-nums; }
thead th { border-top: 0; color: var(--quiet); }
tbody th { font-weight: 500; }
.failed th, .failed td:last-child { overflow-wrap: anywhere; min-width: 9rem; }
.more { border-top: 1px solid var(--line); }
.more summary { padding: .7rem 0; }
.more dl { padding-bottom: 1rem; font-size: .86rem; }
.more dt { color: var(--ink); }
.more dd { font-family: inherit; }
footer { color: var(--quiet); }

dialog { width: min(72rem, 100vw - 1.5rem); max-width: none; max-height: calc(100dvh - 1.5rem); overflow: auto;
  padding: 1.2rem 1.4rem 1.5rem; color: var(--ink); background: var(--card);
  border: 1px solid var(--line); border-radius: 16px; }
dialog::backdrop { background: #000a; }
dialog .head { display: flex; flex-wrap: wrap; gap: .5rem; align-items: start; justify-content: space-between; }
dialog h2 { margin: 0; font-size: 1.1rem; overflow-wrap: anywhere; flex: 1 1 16rem; }
dialog .sights { gap: 1rem; margin: 1rem 0; }
dialog .sight { flex: 1 1 12rem; min-width: 0; max-width: calc(3 * var(--side)); }
dialog td { overflow-wrap: anywhere; min-width: 7.5rem; }
dialog .thumb { --size: 100%; height: auto; aspect-ratio: 1; }
dialog figcaption { overflow-wrap: anywhere; }
dialog pre { overflow-x: auto; background: var(--page); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem; font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: .4rem 0 0; }
dialog .table { background: none; }
a { color: var(--accent); }
@media (max-width: 40rem) {
  main, footer { padding: 0 .9rem; }
  .bar .pages { margin-left: 0; }
  dialog { padding: .9rem; }
  .says .class { flex-wrap: wrap; gap: 0 .5rem; }
  th, td { padding: .35rem .6rem; }
  .failed thead { display: none; }
  .failed tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0; }
  .failed th, .failed td { display: block; border: 0; padding: .05rem .6rem; }
}
@media print { .panel, .bar button, .pages { display: none; } }
"""
