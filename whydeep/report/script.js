"use strict";
(() => {
  const SVG = "http:" + "//www.w3.org/2000/svg"; // a name, not an address: nothing is fetched
  const tip = document.getElementById("tip");
  const number = new RegExp("^[-+]?[0-9.]+(e[-+]?[0-9]+)?$", "i");

  // Values of a plot: circles made from the points that the page carries; one tab stop a plot, arrows move on.
  const show = (circle) => {
    const plot = circle.ownerSVGElement;
    for (const old of plot.querySelectorAll(".near")) old.classList.remove("near");
    circle.classList.add("near");
    const name = document.createElement("b");
    name.textContent = circle.dataset.label;
    tip.replaceChildren(name, `${circle.dataset.x}: ${circle.dataset.y}`);
    tip.hidden = false;
    const at = circle.getBoundingClientRect();
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = Math.min(Math.max(4, at.left + at.width / 2 - width / 2), document.documentElement.clientWidth - width - 4);
    tip.style.left = `${left}px`;
    tip.style.top = `${at.top - height - 8 < 2 ? at.bottom + 8 : at.top - height - 8}px`;
  };
  const hide = (plot) => {
    for (const old of plot.querySelectorAll(".near")) old.classList.remove("near");
    tip.hidden = true;
  };
  for (const plot of document.querySelectorAll("svg.plot")) {
    const lines = [...plot.querySelectorAll("g.points")].map((group) =>
      JSON.parse(group.dataset.points).map(([cx, cy, x, y]) => {
        const circle = document.createElementNS(SVG, "circle");
        const given = { class: "point", cx, cy, r: 4, tabindex: -1, role: "img", "aria-label": `${group.dataset.label}, ${x}: ${y}`,
          "data-label": group.dataset.label, "data-x": x, "data-y": y };
        for (const key in given) circle.setAttribute(key, given[key]);
        group.append(circle);
        return circle;
      }));
    const all = lines.flat();
    if (!all.length) continue;
    all[0].setAttribute("tabindex", 0);
    const move = (to) => {
      for (const circle of all) circle.setAttribute("tabindex", circle === to ? 0 : -1);
      to.focus();
    };
    plot.addEventListener("focusin", (event) => { if (event.target.matches(".point")) show(event.target); });
    plot.addEventListener("focusout", () => hide(plot));
    plot.addEventListener("keydown", (event) => {
      const row = lines.findIndex((line) => line.includes(event.target));
      if (row < 0) return;
      const line = lines[row], k = line.indexOf(event.target);
      const across = (step) => {
        const other = lines[(row + step + lines.length) % lines.length];
        const x = +event.target.getAttribute("cx");
        return other.reduce((best, c) => Math.abs(c.getAttribute("cx") - x) < Math.abs(best.getAttribute("cx") - x) ? c : best);
      };
      const keys = { ArrowRight: () => line[Math.min(k + 1, line.length - 1)], ArrowLeft: () => line[Math.max(k - 1, 0)],
        Home: () => line[0], End: () => line[line.length - 1], ArrowUp: () => across(-1), ArrowDown: () => across(1) };
      if (event.key === "Escape") event.target.blur();
      if (!(event.key in keys)) return;
      event.preventDefault();
      move(keys[event.key]());
    });
    const nearest = (event) => {
      const matrix = plot.getScreenCTM();
      if (!matrix) return;
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      const distance = (c) => Math.hypot(c.getAttribute("cx") - at.x, c.getAttribute("cy") - at.y);
      const best = all.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      if (distance(best) < 20) show(best); else if (!plot.contains(document.activeElement)) hide(plot);
    };
    plot.addEventListener("pointermove", nearest);
    plot.addEventListener("pointerdown", nearest);
    plot.addEventListener("pointerleave", () => { if (!plot.contains(document.activeElement)) hide(plot); });
  }
  addEventListener("scroll", () => {
    const focused = document.activeElement;
    if (focused && focused.matches(".point")) show(focused); else tip.hidden = true;
  }, { passive: true });

  // Tables: the button of a column sorts by it, once more turns the order around; missing values stay last.
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.key ?? cell.textContent.trim();
    if (text === "inf") return Infinity;
    if (text === "-inf") return -Infinity;
    return number.test(text) ? Number(text) : text;
  };
  const missing = (value) => value === "" || value === "–";
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        const order = typeof a === "number" && typeof b === "number" ? (a > b) - (a < b)
          : String(a).localeCompare(String(b), "en", { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  // A link into a folded part unfolds it; on paper everything is unfolded.
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  let folded = [];
  const print = () => {
    folded = folded.concat([...document.querySelectorAll("details:not([open])")]);
    for (const part of folded) part.open = true;
  };
  const restore = () => {
    for (const part of folded) part.open = false;
    folded = [];
  };
  addEventListener("beforeprint", print);
  addEventListener("afterprint", restore);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? print() : restore()));
})();
