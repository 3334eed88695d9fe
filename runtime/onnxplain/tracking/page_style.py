"""The style of a training's page, beside that of every page, and how it looks by day and by night."""

STYLE = """
:root { --good: #1c6b3a; --bad: #b3261e; --grey: #b9b4aa; --one: #c0440f; --two: #0067a8; --three: #00795a;
  --four: #a3548a; }
@media (prefers-color-scheme: dark) { :root { --good: #74cb92; --bad: #ff8f80; --grey: #6a6670; --one: #ff9a5c;
  --two: #6db8f0; --three: #4fd0a8; --four: #e6a5cf; } }
.top { padding-bottom: .2rem; }
.figures { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 0 0 1.2rem; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dt { font-size: .82rem; }
.figures dd { font-family: inherit; font-size: 1.35rem; font-weight: 600; line-height: 1.2; color: var(--ink);
  font-variant-numeric: tabular-nums; margin: 0; }
.warning { border: 1px solid var(--accent); border-radius: 10px; padding: .7rem 1rem; max-width: 60rem; }
.warning ul { margin: .3rem 0 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 6px; }
.jump { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 1.2rem 0 0; font-size: .92rem; }
section { margin-top: 2.6rem; }
section > h2 { margin-top: 0; }
section > p { color: var(--quiet); }

.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1rem 1.1rem; }
.chart { position: relative; }
.plot { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.plot path { vector-effect: non-scaling-stroke; }
.line { fill: none; stroke: var(--kind, var(--accent)); stroke-width: 2.4; stroke-linecap: round;
  stroke-linejoin: round; }
.band { fill: var(--kind, var(--accent)); fill-opacity: .17; stroke: var(--kind, var(--accent)); stroke-opacity: .3;
  stroke-width: 1; }
.dot { fill: none; stroke-width: 7; stroke-linecap: round; }
.dot.right { stroke: var(--good); }
.dot.wrong { stroke: var(--bad); }
.dot.own { stroke: var(--accent); }
.line.other { stroke: var(--grey); stroke-width: 1.3; opacity: .65; }
.line.all { stroke: var(--quiet); stroke-width: 1.6; stroke-dasharray: 5 5; }
.rule { stroke: var(--line); stroke-width: 1; fill: none; }
.one { --kind: var(--one); } .two { --kind: var(--two); }
.three { --kind: var(--three); } .four { --kind: var(--four); }
.tick, .step, .end { position: absolute; font-size: .78rem; line-height: 1; color: var(--quiet); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tick { right: calc(100% + .5rem); transform: translateY(-50%); }
.step { top: calc(100% + .5rem); transform: translateX(-50%); }
.end { left: calc(100% + .6rem); transform: translateY(-50%); max-width: 8.5rem; overflow: hidden; line-height: 1.2;
  text-overflow: ellipsis; color: var(--kind, var(--quiet)); font-weight: 600; }
.end.mean { font-weight: 400; }
.overview { padding: 1.4rem 10rem 2.6rem 3.4rem; }
.overview .chart { height: 17rem; }
.axis { position: absolute; right: 0; top: calc(100% + 1.5rem); font-size: .78rem; line-height: 1;
  color: var(--quiet); }
.overview + .note { margin-top: .7rem; max-width: none; }

.panels { list-style: none; margin: 1rem 0 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 14.5rem), 1fr)); }
.panels li { min-width: 0; padding: .8rem 1rem .9rem; display: block; margin: 0; color: inherit; font-weight: inherit; }
.panels h3 { display: flex; justify-content: space-between; gap: .6rem; font-size: .98rem; }
.panels h3 bdi, .panels p { overflow-wrap: anywhere; min-width: 0; display: -webkit-box; -webkit-line-clamp: 2;
  -webkit-box-orient: vertical; overflow: hidden; }
.panels h3 span { font-variant-numeric: tabular-nums; white-space: nowrap; }
.panels .chart { height: 5.4rem; margin: .8rem 0 .7rem 1.9rem; }
.panels .tick { font-size: .7rem; right: calc(100% + .4rem); }
.panels p { margin: 0; font-size: .84rem; line-height: 1.4; color: var(--quiet); }

.hard { display: grid; gap: 1rem; list-style: none; margin: 1rem 0 0; padding: 0; font-size: inherit; }
.hard > li { display: block; margin: 0; color: inherit; font-weight: inherit; }
.hard article { margin: 0; }
.hard header { display: flex; flex-wrap: wrap; gap: .1rem 1rem; align-items: baseline; }
.hard h3 { font-size: 1.12rem; }
.hard h3 span { white-space: nowrap; }
.hard h3 .not { color: var(--bad); } .hard h3 .is { color: var(--good); }
.rank { color: var(--quiet); font-variant-numeric: tabular-nums; }
.file { color: var(--quiet); font-size: .86rem; overflow-wrap: anywhere; margin-left: auto; }
.hard .sight { grid-template-columns: 9.5rem minmax(13rem, 15rem) minmax(0, 1fr); }
.hint { margin: .5rem 0 0; max-width: none; font-size: .92rem; }
.course .chart { height: 4.6rem; margin: .5rem .5rem 1.7rem 2.9rem; }
.course h4, .why h4 { margin: 0 0 .45rem; font-weight: 600; }
.course h4 small, .why h4 small { font-weight: 400; }
.course h4 small { display: block; font-size: .82rem; }
.why { display: grid; gap: .9rem 1.4rem; align-content: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.why .maps { grid-template-columns: repeat(auto-fill, minmax(5.4rem, 1fr)); gap: .6rem; }
.why figure { max-width: 9rem; }
.why > .note { grid-column: 1 / -1; }
.said { list-style: none; margin: 0; padding: 0; font-size: .86rem; display: grid; column-gap: .8rem;
  grid-template-columns: max-content minmax(0, 1fr) max-content; }
.said li { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; margin: 0;
  padding: .12rem 0; color: var(--ink); font-weight: 400; }
.said .when { color: var(--quiet); font-variant-numeric: tabular-nums; }
.said bdi { overflow-wrap: anywhere; font-weight: 600; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.said .sure { color: var(--quiet); font-variant-numeric: tabular-nums; }
details { margin-top: .5rem; font-size: .86rem; }
summary { cursor: pointer; color: var(--quiet); padding: .1rem 0; }
details .table { margin: .5rem 0 0; }
details table { font-size: .95em; }
details th, details td { padding: .25rem .7rem; }
#table .table { margin-top: 1rem; }
td.number { text-align: right; } th.number { text-align: right; }
@media (max-width: 60rem) {
  .hard .sight { grid-template-columns: 9.5rem minmax(0, 1fr); }
  .why { grid-column: 1 / -1; }
}
@media (max-width: 40rem) {
  main, footer { padding: 0 .9rem; }
  .overview { padding: 1.2rem 6.6rem 2.5rem 2.7rem; }
  .overview .chart { height: 14rem; }
  .end { max-width: 5.6rem; }
  .hard .sight { grid-template-columns: minmax(0, 1fr); gap: 1rem; }
  .hard .seen { max-width: 9.5rem; }
  .file { margin-left: 0; flex-basis: 100%; }
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem; }
  .panels li { padding: .65rem .75rem; }
  .panels .chart { height: 4rem; }
  th, td { padding: .4rem .7rem; }
}
"""
