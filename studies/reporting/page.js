"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("content");
  const chosen = { ...data.chosen };
  const slots = new Map(data.highlighted.map((solver, slot) => [solver, slot]));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const redrawn = [];
  const charts = [];

  // --- Elements -------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly reads a few HTML tags in labels.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const matches = (keys) => Object.entries(keys).every(([name, value]) => !(name in chosen) || chosen[name] === value);

  function section(id, title, caption, parent = main) {
    const element = make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title));
    if (caption) element.append(make("p", { class: "caption" }, caption));
    parent.append(element);
    return element;
  }

  // --- Solvers: colours, dashes, markers ------------------------------------------------------

  function look(solver) {
    const slot = slots.get(solver);
    const family = data.solvers[solver].family;
    const dash = data.dashes[family] ?? "solid";
    if (slot === undefined) return { colour: css("--other"), dash, width: 1, marker: null };
    const colours = dark.matches ? data.colours.dark : data.colours.light;
    return {
      colour: colours[slot % colours.length],
      dash,
      width: 4.4 - 2.8 * Math.min(slot / (data.highlighted.length - 1 || 1), 1), // Of lines that coincide, each shows beside the next.
      marker: data.markers[(slot + Math.floor(slot / colours.length)) % data.markers.length],
    };
  }

  const DASHES = { solid: "", dash: "6 4", dot: "2 3", dashdot: "7 3 2 3" };
  const MARKS = {
    circle: "M14 8m-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0", square: "M10.8 4.8h6.4v6.4h-6.4z",
    diamond: "M14 3.6L18.4 8L14 12.4L9.6 8z", "triangle-up": "M14 4L18 11.2H10z", "triangle-down": "M14 12L18 4.8H10z",
    cross: "M12.8 4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z", x: "M10.6 6.2l1.8-1.8L14 6l1.6-1.6 1.8 1.8L15.8 8l1.6 1.8-1.8 1.8L14 10l-1.6 1.6-1.8-1.8L12.2 8z",
  };

  function sample(solver) {
    const { colour, dash, width, marker } = look(solver);
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    for (const [name, value] of Object.entries({ width: 28, height: 16, viewBox: "0 0 28 16", "aria-hidden": "true" })) svg.setAttribute(name, value);
    const line = document.createElementNS(space, "line");
    for (const [name, value] of Object.entries({ x1: 0, x2: 28, y1: 8, y2: 8, stroke: colour, "stroke-width": width, "stroke-dasharray": DASHES[dash] })) line.setAttribute(name, value);
    svg.append(line);
    if (marker) {
      const shape = document.createElementNS(space, "path");
      shape.setAttribute("d", MARKS[marker]);
      shape.setAttribute("fill", colour);
      svg.append(shape);
    }
    return svg;
  }

  function chip(solver) {
    const pressed = slots.has(solver);
    const { name } = data.solvers[solver];
    return make("button", { class: "chip", type: "button", "aria-pressed": String(pressed), title: name, onclick: () => toggle(solver) },
      sample(solver), make("span", {}, name));
  }

  function toggle(solver) {
    if (slots.has(solver)) slots.delete(solver);
    else {
      const taken = new Set(slots.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      slots.set(solver, slot);
    }
    legend();
    redraw();
  }

  function legend() {
    document.getElementById("chips").replaceChildren(...[...slots.keys()].map(chip));
    const hidden = data.solvers.length - slots.size;
    const words = hidden ? `${hidden} more in grey: choose among all ${data.solvers.length} solvers` : `All ${data.solvers.length} solvers, by family`;
    document.getElementById("chooser-summary").textContent = words;
    const families = [...new Set(data.solvers.map((solver) => solver.family))];
    document.getElementById("families").replaceChildren(...families.flatMap((family) => [
      make("h3", {}, data.families[family] ?? family),
      make("div", {}, ...data.solvers.map((solver, k) => (solver.family === family ? chip(k) : null)).filter(Boolean)),
    ]));
  }

  // --- Choosing without reloading -------------------------------------------------------------

  function selection(name, values, value, change) {
    const select = make("select", { onchange: (event) => change(event.target.value) },
      ...values.map((each) => make("option", { value: each }, each)));
    select.value = value;
    return make("label", {}, name, select);
  }

  function filters() {
    const bar = document.getElementById("filters");
    for (const [name, values] of Object.entries(data.filters)) {
      if (values.length > 1) bar.append(selection(name, values, chosen[name], (value) => { chosen[name] = value; redraw(); }));
      else bar.append(make("label", {}, `${name} ${values[0]}`));
    }
    bar.append(make("nav", { class: "sections", "aria-label": "Sections" },
      ...[["says", "Results"], ["summary", "Solvers"], ["performance", "Profiles"], ["traces", "Convergence"], ["asked", "Set-up"]]
        .filter(([id]) => document.getElementById(id)).map(([id, words]) => make("a", { href: `#${id}` }, words))));
  }

  function picker(figure, draw) {
    const own = Object.keys(figure.panels[0].keys).filter((name) => !(name in chosen));
    const picked = Object.fromEntries(own.map((name) => [name, figure.panels[0].keys[name]]));
    const place = make("div", { class: "pick" });
    const current = () => figure.panels.find((panel) => matches(panel.keys) && own.every((name) => panel.keys[name] === picked[name]));
    function update() {
      place.replaceChildren();
      for (const name of own) {
        const values = [...new Set(figure.panels.filter((panel) => matches(panel.keys)).map((panel) => panel.keys[name]))];
        if (values.length && !values.includes(picked[name])) picked[name] = values[0];
        if (values.length > 1) place.append(selection(name, values, picked[name], (value) => { picked[name] = value; update(); }));
      }
      draw(current());
    }
    return { place, update, pick: (name, value) => { picked[name] = value; update(); } };
  }

  const pause = (milliseconds = 0) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  async function unpacked() {
    await pause(20); // Words and tables are painted first.
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(make("script", {}, await new Response(stream).text()));
  }

  // Charts are drawn one after the other, so that the page can be read and scrolled meanwhile.
  let round = 0;
  let library = null;
  async function redraw() {
    round += 1;
    const mine = round;
    for (const draw of redrawn) draw();
    document.documentElement.dataset.shown ??= String(Math.round(performance.now()));
    library ??= unpacked();
    try {
      await library;
    } catch (error) {
      for (const chart of document.querySelectorAll(".chart")) {
        chart.replaceChildren(make("p", { class: "note" }, `This browser cannot draw charts of this page (${error.message}); the tables are complete.`));
      }
      return;
    }
    for (const draw of charts) {
      if (mine !== round) return;
      draw();
      await pause();
    }
    document.documentElement.dataset.drawn = String(Math.round(performance.now()));
  }

  // --- Charts ---------------------------------------------------------------------------------

  // A round distance of about five ticks over a width.
  function even(width) {
    const power = 10 ** Math.floor(Math.log10(width / 5 || 1));
    return [1, 2, 5, 10].map((step) => step * power).find((step) => width / step <= 6);
  }

  function axis(spec, label, { decades, most } = {}) {
    const common = {
      title: { text: plain(label ?? spec.label), standoff: 8 }, gridcolor: css("--grid"), linecolor: css("--rule"),
      zeroline: false, ticks: "outside", tickcolor: css("--rule"), automargin: true, fixedrange: narrow.matches,
    };
    if (spec.share) return { ...common, tickformat: ".0%", range: [-0.02, 1.03] };
    if (spec.log) {
      const log = { ...common, type: "log", exponentformat: "power", autorange: spec.reverse ? "reversed" : true };
      if (decades > 1.8) return { ...log, dtick: decades > 12 ? 4 : decades > 5 ? 2 : 1 };
      // Within two decades whole numbers at 1, 2 and 5, within less than one at equal distances: Plotly's own choice leaves the zeros out.
      return { ...log, tickformat: "~g", dtick: decades > 0.8 ? "D2" : `L${even(most - most / 10 ** decades)}` };
    }
    return common;
  }

  function layout(extra) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      dragmode: narrow.matches ? false : "zoom",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--ink") },
      hoverlabel: { namelength: -1, bgcolor: css("--raised"), bordercolor: css("--rule"), font: { color: css("--ink"), size: 12 } },
      margin: { l: 56, r: 14, t: 10, b: 48 }, ...extra,
    };
  }

  const PAPER = 690; // A4 within its margins, in CSS pixels
  const CONFIG = {
    displaylogo: false, responsive: true, displayModeBar: false,
  };

  function curves(figure, panel) {
    const order = panel.curves.map((curve) => curve).sort((a, b) => (slots.get(a.s) ?? -1) - (slots.get(b.s) ?? -1));
    return order.map(({ s, x, y }) => {
      const { colour, dash, width, marker } = look(s);
      const steps = figure.shape === "steps";
      const runsOn = steps && panel.x_most !== null && x[x.length - 1] < panel.x_most;
      const marked = marker !== null || figure.shape === "markers";
      return {
        x: runsOn ? [...x, panel.x_most] : x, y: runsOn ? [...y, y[y.length - 1]] : y,
        name: plain(data.solvers[s].name), type: "scatter", mode: marked ? "lines+markers" : "lines",
        line: { color: colour, dash, width, shape: steps ? "hv" : "linear" },
        marker: { symbol: marker ?? "circle", size: marker ? 7 : 4, color: colour, maxdisplayed: figure.shape === "markers" ? 0 : 7 },
        hovertemplate: `<b>%{fullData.name}</b><br>%{x:.4~g}, ${figure.y.share ? "%{y:.1%}" : "%{y:.2~e}"}<extra></extra>`,
      };
    });
  }

  function span(panel, name) {
    const values = panel.curves.flatMap((curve) => curve[name]).filter((value) => value > 0);
    const [least, most] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, 0]);
    const end = Math.max(most, name === "x" ? panel.x_most ?? 0 : 0);
    return { decades: Math.log10(end / least), most: end };
  }

  function curveFigure(figure, place) {
    const chart = make("div", { class: "chart", role: "img" });
    const note = make("p", { class: "note" });
    const { place: picks, update, pick } = picker(figure, (panel) => {
      if (!panel) {
        Plotly.purge(chart);
        chart.hidden = true;
        note.textContent = "There is nothing to show for this choice.";
        return;
      }
      chart.hidden = false;
      const levels = panel.level === null ? [] : [{
        type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.level, y1: panel.level, layer: "below",
        line: { color: css("--soft"), width: 1, dash: "dash" },
      }];
      const x = axis(figure.x, panel.x_label, span(panel, "x"));
      if (figure.shape === "steps" && panel.x_most !== null) {
        const least = Math.min(...panel.curves.map((curve) => Math.min(...curve.x.filter((value) => value > 0))));
        x.range = [Math.log10(least) - 0.01, Math.log10(panel.x_most)];
        x.autorange = false;
      }
      Plotly.react(chart, curves(figure, panel), layout({ xaxis: x, yaxis: axis(figure.y, null, span(panel, "y")), shapes: levels }), CONFIG);
      const keys = Object.entries(panel.keys).map(([name, value]) => `${name} ${value}`).join(", ");
      chart.setAttribute("aria-label", `${figure.title}; ${keys}. ${figure.caption}`);
      note.textContent = panel.note;
    });
    place.append(picks, chart, note);
    charts.push(update);
    return pick;
  }

  function barFigure(figure, place) {
    const chart = make("div", { class: "chart", role: "img" });
    const { place: picks, update } = picker(figure, (panel) => {
      if (!panel) return;
      const names = data.solvers.map((solver) => plain(solver.name));
      const shown = names.map((_, k) => k).filter((k) => panel.counts[k].some((count) => count > 0));
      const row = narrow.matches ? 38 : 23;
      chart.style.height = `${shown.length * row + 100}px`;
      const traces = data.outcomes.map((outcome, k) => ({
        type: "bar", orientation: "h", name: plain(outcome.name), y: shown.map((_, place) => place), x: shown.map((s) => panel.counts[s][k]),
        marker: { color: dark.matches ? outcome.dark : outcome.light, line: { color: css("--paper"), width: 1 } },
        customdata: shown.map((s) => names[s]), width: narrow.matches ? 0.42 : 0.78,
        hovertemplate: `<b>%{customdata}</b><br>%{x} ${plain(outcome.name)}<extra></extra>`,
        showlegend: panel.counts.some((counts) => counts[k] > 0),
      }));
      const short = (name) => (name.length > 46 ? `${name.slice(0, 45)}…` : name);
      const above = narrow.matches ? shown.map((s, k) => ({
        x: 0, y: k - 0.27, xanchor: "left", yanchor: "bottom", text: short(names[s]), showarrow: false, font: { size: 11 },
      })) : [];
      Plotly.react(chart, traces, layout({
        barmode: "stack", bargap: 0, showlegend: true, annotations: above,
        legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal", itemclick: false, itemdoubleclick: false },
        xaxis: { ...axis({ label: "cells" }), fixedrange: true },
        yaxis: { range: [shown.length - 0.45, narrow.matches ? -0.8 : -0.55], fixedrange: true, automargin: true, showgrid: false, zeroline: false,
          showticklabels: !narrow.matches, tickvals: shown.map((_, k) => k), ticktext: shown.map((s) => `${short(names[s])}\u00a0\u00a0`), tickfont: { size: 11.5 } },
        margin: { l: 14, r: 14, t: 48, b: 44 },
      }), CONFIG);
      const keys = Object.entries(panel.keys).map(([name, value]) => `${name} ${value}`).join(", ");
      chart.setAttribute("aria-label", `${figure.title}; ${keys}. ${figure.caption} The counts by family are in the table below.`);
    });
    place.append(picks, chart);
    charts.push(update);
  }

  // --- Tables ---------------------------------------------------------------------------------

  function scroller(label, table) {
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
  }

  function matrixFigure(figure, place, toTrace) {
    place.append(make("ul", { class: "key" },
      ...data.outcomes.map((outcome, k) => make("li", {}, make("b", { class: `k${k}` }, k === 0 ? "12" : outcome.mark), k === 0 ? "solved, with that much work" : outcome.name))));
    const holder = make("div");
    place.append(holder);
    const boundary = data.solvers.map((solver, k) => k > 0 && data.solvers[k - 1].family !== solver.family);
    redrawn.push(() => {
      const panel = figure.panels.find((each) => matches(each.keys));
      if (!panel) { holder.replaceChildren(make("p", { class: "note" }, "There is nothing to show for this choice.")); return; }
      const head = make("tr", {}, make("th", { scope: "col" }, "problem"),
        ...data.solvers.map((solver, s) => make("th", { scope: "col", class: boundary[s] ? "first-of-family" : null, title: solver.name }, make("span", {}, solver.name))));
      const body = panel.rows.map((name, r) => {
        const label = toTrace.has(name)
          ? make("button", { type: "button", title: `Convergence on ${name}`, onclick: () => toTrace.show(name) }, name) : name;
        return make("tr", {}, make("th", { scope: "row", class: "code", title: name }, label),
          ...panel.texts[r].map((text, s) => {
            const kind = panel.kinds[r][s];
            const classes = [kind >= 0 ? `k${kind}` : "", boundary[s] ? "first-of-family" : ""].join(" ").trim();
            const ending = kind >= 0 ? data.outcomes[kind].name : kind === -1 ? "not run" : `${Math.round(100 * panel.shares[r][s])}% solved`;
            const cell = make("td", { class: classes || null, title: `${data.solvers[s].name} on ${name}: ${ending}` }, text);
            if (kind === -2) cell.style.background = `color-mix(in srgb, var(--ok-tint) ${Math.round(100 * panel.shares[r][s])}%, transparent)`;
            return cell;
          }));
      });
      holder.replaceChildren(scroller(figure.title, make("table", { class: "matrix" }, make("thead", {}, head), make("tbody", {}, ...body))));
    });
  }

  // A name breaks behind its brackets and commas alone.
  const broken = (name) => name.split(/(?<=[(,])(?!\))/).flatMap((part) => [part, make("wbr")]);

  function table(spec, place) {
    const holder = make("div");
    place.append(holder);
    let by = null;
    let down = true;
    const draw = () => {
      const group = spec.groups.find((each) => matches(each.keys));
      if (!group || !group.rows.length) { holder.replaceChildren(make("p", { class: "note" }, "There is nothing to show for this choice.")); return; }
      const order = group.rows.map((_, k) => k);
      const rank = (k) => group.sort[k][by];
      if (by !== null) {
        order.sort((a, b) => {
          const [left, right] = [rank(a), rank(b)];
          if (left === null || right === null) return (left === null) - (right === null);
          const sign = typeof left === "string" ? String(left).localeCompare(String(right)) : left - right;
          return down ? -sign : sign;
        });
      }
      const number = spec.columns.map((column) => !["text", "code"].includes(column.kind));
      const head = spec.columns.map((column, c) => make("th", {
        scope: "col", class: number[c] ? "number" : null, "aria-sort": by === c ? (down ? "descending" : "ascending") : null,
      }, make("button", {
        class: "sorter", type: "button", title: "Sort", onclick: () => { down = by === c ? !down : number[c]; by = c; draw(); },
      }, ...broken(column.header))));
      const body = order.map((k) => make("tr", {}, ...group.rows[k].map((text, c) => {
        const [middle, bounds] = text.split(/ (?=\()/, 2);
        const split = number[c] && bounds;
        const content = split ? [middle, make("span", { class: "bounds" }, ` ${bounds}`)] : [text];
        const kind = [number[c] ? "number" : "", spec.columns[c].kind === "code" ? "code" : "", spec.columns[c].header === "text" ? "prose code" : ""].join(" ").trim();
        return make(c === 0 && !number[0] ? "th" : "td", { scope: c === 0 && !number[0] ? "row" : null, class: kind || null, title: c === 0 ? text : null }, ...content);
      })));
      holder.replaceChildren(scroller(spec.title, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body))));
    };
    redrawn.push(draw);
  }

  // --- The page -------------------------------------------------------------------------------

  const figures = new Map(data.figures.map((figure) => [figure.name, figure]));
  const tables = new Map(data.tables.map((spec) => [spec.name, spec]));
  document.getElementById("title").textContent = data.title;
  document.getElementById("subtitle").textContent = data.subtitle;

  const toTrace = {
    has: (name) => figures.has("traces") && figures.get("traces").panels.some((panel) => panel.keys.problem === name),
    show: () => {},
  };

  const says = make("ul", { class: "says" });
  section("says", "What came out").append(says);
  redrawn.push(() => {
    const found = data.headlines.find((each) => matches(each.keys));
    says.replaceChildren(...(found ? found.said.map((sentence) => make("li", {}, sentence)) : [make("li", {}, "There are no cells of this choice.")]));
  });

  function add(name, parent = main) {
    if (!figures.has(name)) return null;
    const figure = figures.get(name);
    const place = section(name, figure.title, figure.caption, parent);
    if (figure.kind === "matrix") matrixFigure(figure, place, toTrace);
    else if (figure.kind === "bars") barFigure(figure, place);
    else return curveFigure(figure, place);
    return null;
  }
  function tabulate(name, parent = main) {
    if (!tables.has(name)) return;
    const spec = tables.get(name);
    table(spec, section(figures.has(name) ? `${name}-table` : name, spec.title, spec.caption, parent));
  }
  function beside(...names) {
    const present = names.filter((name) => figures.has(name));
    const parent = present.length > 1 ? make("div", { class: "pair" }) : main;
    if (present.length > 1) main.append(parent);
    return present.map((name) => add(name, parent));
  }

  add("solved");
  tabulate("summary");
  beside("performance", "data");
  tabulate("pairs");
  beside("work-precision", "scaling");
  const pickTrace = add("traces");
  if (pickTrace) {
    toTrace.show = (name) => {
      pickTrace("problem", name);
      document.getElementById("traces").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    };
  }
  add("gradient-error");
  if (tables.has("gradient-error")) table(tables.get("gradient-error"), document.getElementById("gradient-error"));
  add("outcomes");
  if (tables.has("outcomes")) table(tables.get("outcomes"), document.getElementById("outcomes"));
  tabulate("exceptions");

  const asked = section("asked", "What was asked", data.configuration ? "The exact configuration." : "No configuration was given to this report.");
  if (data.configuration) asked.append(make("pre", { tabindex: "0" }, data.configuration));
  const ran = section("ran", "Where it ran", null);
  ran.append(make("dl", {}, ...data.environment.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
  const again = section("again", "To reproduce", data.reproduce.words);
  again.append(make("pre", { tabindex: "0" }, data.reproduce.command));
  document.getElementById("foot").textContent = data.foot;

  legend();
  filters();
  redraw();
  // On paper charts have the width of the paper, and two fit a page; bars have the height of their number.
  const paper = (printing) => {
    for (const chart of document.querySelectorAll(".chart")) {
      const height = chart.style.height ? {} : { height: printing ? 330 : null };
      if (window.Plotly && chart.data) Plotly.relayout(chart, { autosize: !printing, width: printing ? PAPER : null, ...height });
    }
  };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  dark.addEventListener("change", () => { legend(); redraw(); });
  narrow.addEventListener("change", redraw);
})();
