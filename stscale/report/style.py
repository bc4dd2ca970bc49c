"""The style sheet of the page: system fonts, light and dark, wide and narrow."""

CSS = """
:root { --ink: #1d2329; --soft: #5b6570; --line: #d9dee3; --ground: #ffffff; --tint: #f4f6f8; --accent: #0072b2;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9ca7b2; --line: #353d45; --ground: #14181c; --tint: #1d2329; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 1100px; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
header p, footer { color: var(--soft); }
header p { margin: 0; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0.1rem 0 0.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 0.9rem; padding-top: 0.9rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0.6rem; margin: 0; }
.facts div { background: var(--tint); border-radius: 6px; padding: 0.65rem 0.8rem; }
.facts dt { color: var(--soft); font-size: 0.82rem; }
.facts dd { margin: 0.1rem 0 0; font-size: 1.3rem; line-height: 1.25; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.facts small { display: block; font-size: 0.82rem; line-height: 1.35; color: var(--soft); }
.notes { margin: 1.1rem 0 0; padding: 0.7rem 1rem 0.7rem 2rem; border-left: 3px solid var(--accent);
  background: var(--tint); border-radius: 0 6px 6px 0; overflow-wrap: anywhere; }
.notes li + li { margin-top: 0.35rem; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
.scroll + figure, .notes + figure, figure + figure { margin-top: 1.8rem; }
figcaption { color: var(--soft); font-size: 0.92rem; margin-top: 0.55rem; max-width: 54rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 1.1rem 0.35rem 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
.n { text-align: right; }
.chip { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; margin-right: 0.4em;
  box-shadow: 0 0 0 1px var(--line); }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; background: var(--tint); padding: 0.9rem 1rem; border-radius: 6px; font-size: 0.82rem;
  line-height: 1.5; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { padding-top: 2.5rem; padding-bottom: 2.5rem; font-size: 0.85rem; }
@media (max-width: 600px) {
  header { padding-top: 1.5rem; }
  main, header, footer { padding-left: 0.9rem; padding-right: 0.9rem; }
  .facts { grid-template-columns: 1fr 1fr; }
  figure img { width: 40rem; max-width: none; }
}
@media print { details:not([open]) { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""
