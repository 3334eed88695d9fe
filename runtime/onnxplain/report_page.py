"""The frame of a page that stands alone, for `string.Template`, and its style."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'$policy">
<meta name="generator" content="onnxplain">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header class="top">
<h1>$title</h1>
$introduction
$legend
</header>
$body
</main>
<footer><dl>$provenance</dl></footer>
$script</body>
</html>
"""

LEGEND = """<div class="legend"><span>little influence</span>
<i style="background:linear-gradient(90deg, $stops)"></i><span>strong influence</span></div>"""

# What every page has: colours by day and night, text, pictures, the legend and the foot.
BASE_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f5f2; --card: #ffffff; --ink: #1d1c1a; --quiet: #66625b; --line: #e2dfd8; --accent: #b5432a;
  --track: #ece9e2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131214; --card: #1d1c1f; --ink: #ece9e4; --quiet: #a09b93; --line: #333136; --accent: #f08a4b;
  --track: #2c2a2e;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif;
}
main, footer { max-width: 84rem; margin: 0 auto; padding: 0 1.25rem; }
.top { padding: 3rem 0 1rem; }
h1 { font-size: clamp(1.7rem, 4vw, 2.5rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 1rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; letter-spacing: -0.01em; margin: 3rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
h4 { font-size: .95rem; margin: 0 0 .45rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: 0 0 .8rem; }
.note, small, figcaption { color: var(--quiet); }
.note { font-size: .86rem; margin: .2rem 0 0; }
.legend { display: flex; align-items: center; gap: .7rem; margin-top: 1.4rem; font-size: .82rem; color: var(--quiet); }
.legend i { width: 12rem; max-width: 40vw; height: .6rem; border-radius: .3rem; }
img { display: block; width: 100%; height: auto; border-radius: 8px; background: var(--track); }
img.small { image-rendering: pixelated; }

footer { border-top: 1px solid var(--line); margin-top: 3.5rem; padding-top: 1.2rem; padding-bottom: 3rem;
  font-size: .8rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1.2rem; margin: 0;
  color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 40rem) {
  .top { padding-top: 1.8rem; }
  dl { grid-template-columns: minmax(0, 1fr); }
  dd { margin-bottom: .4rem; }
}
"""

# A report's own cards, rows, maps and tables.
REPORT_STYLE = """
article {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.1rem 1.25rem 1.25rem;
  margin: 1.1rem 0; break-inside: avoid;
}
.sight { display: grid; grid-template-columns: 11.5rem minmax(0, 1fr); gap: 1.5rem; margin-top: .9rem; }
.row { display: grid; grid-template-columns: 12rem minmax(0, 1fr); gap: 1.25rem; }
.row + .row { border-top: 1px solid var(--line); margin-top: 1.1rem; padding-top: 1.1rem; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .8rem; align-items: start; }
figure { margin: 0; max-width: 16rem; }
figcaption { font-size: .8rem; line-height: 1.35; margin-top: .4rem; overflow-wrap: anywhere; }
figcaption small { display: block; font-size: .95em; opacity: .85; }

ol { list-style: none; margin: 0; padding: 0; font-size: .88rem; }
li { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .6rem; margin-bottom: .5rem;
  color: var(--quiet); }
li:first-child { color: var(--ink); font-weight: 600; }
.label { overflow-wrap: anywhere; min-width: 0; }
.value { font-variant-numeric: tabular-nums; white-space: nowrap; margin-left: auto; }
.bar { flex: 0 0 100%; height: .34rem; border-radius: .17rem; background: var(--track); overflow: hidden;
  margin-top: .15rem; }
.bar i { display: block; height: 100%; background: var(--accent); border-radius: inherit; }
li:not(:first-child) .bar i { opacity: .5; }

.table { overflow-x: auto; margin: 1rem 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 14px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .9rem 1.1rem .5rem; }
th, td { text-align: left; padding: .5rem 1.1rem; border-top: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
thead th { font-size: .8rem; color: var(--quiet); font-weight: 500; border-top: 0; white-space: nowrap; }
tbody th { font-weight: 500; }
.share { min-width: 8rem; }
.share .value { display: block; }
.share .bar { display: block; }

@media (max-width: 60rem) {
  .row { grid-template-columns: minmax(0, 1fr); gap: .8rem; }
  .says { max-width: 22rem; }
}
@media (max-width: 40rem) {
  .sight { grid-template-columns: minmax(0, 1fr); }
  .seen { max-width: 11.5rem; }
  .maps { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print { body { background: #fff; } article, .table { border-color: #ccc; } }
"""
