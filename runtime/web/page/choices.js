/** Lists to choose one thing from, or several: networks, pictures and classes. */

/** Fills a box with labelled inputs; `type` is "radio" or "checkbox"; `show(entry)` makes what each contains. */
export function fillChoices(box, entries, { type, name, isChosen, show, changed, describe }) {
  const focused = box.contains(document.activeElement) ? document.activeElement.value : null;
  box.replaceChildren(
    ...entries.map((entry) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { type, name, value: entry.key, checked: isChosen(entry) });
      if (describe) input.setAttribute("aria-label", describe(entry));
      input.addEventListener("change", () => changed(entry, input.checked));
      label.append(input, ...show(entry));
      return label;
    }),
  );
  if (focused !== null) [...box.querySelectorAll("input")].find((input) => input.value === focused)?.focus();
}

/** An element with a class and text or children. */
export function element(kind, className, ...content) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** A probability as a bar and a number. */
export function chance(label, probability) {
  const bar = element("span", "track", element("i"));
  bar.firstChild.style.setProperty("--share", String(probability));
  const value = element("span", "value", percent(probability));
  return element("span", "chance", element("span", "label", label), value, bar);
}

/** A share in percent, with a digit behind the point only where it matters. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share >= 0.9995) return "> 99.9 %";
  const digits = share < 0.1 || share > 0.99 ? 1 : 0;
  return `${(100 * share).toLocaleString("en", { maximumFractionDigits: share === 1 ? 0 : digits })} %`;
}
