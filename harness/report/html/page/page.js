"use strict";
(() => {
  // Texts of the results are untrusted: they reach the page as text nodes and attribute values, never as markup.
  const byId = (id) => document.getElementById(id);
  const A = JSON.parse(byId("analysis").textContent);
  const P = JSON.parse(byId("page").textContent);

  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
    return node;
  };
  const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // --- numbers ----------------------------------------------------------------------------------------------------
  const NONE = "–";
  const known = (x) => x !== null && x !== undefined && !Number.isNaN(x);
  const signed = (text) => (/^-0(\.0*)?$/.test(text) ? text.slice(1) : text.replace("-", "−"));
  const fixed = (x, digits) => (known(x) ? signed(x.toFixed(digits)) : NONE);
  const grouped = (x) => (known(x) ? String(Math.round(x)).replace(/\B(?=(\d{3})+$)/g, "\u202f") : NONE);
  const small = (x) => {
    if (!known(x)) return NONE;
    if (x === 0) return "0";
    const magnitude = Math.abs(x);
    if (magnitude >= 0.001 && magnitude < 1000) return signed(x.toFixed(magnitude < 0.1 ? 4 : magnitude < 10 ? 3 : 1));
    return signed(x.toExponential(1));
  };
  const bytes = (x) => {
    if (!known(x)) return NONE;
    if (x < 1024) return `${fixed(x, 0)} B`;
    return x < 1048576 ? `${fixed(x / 1024, 1)} KiB` : `${fixed(x / 1048576, 1)} MiB`;
  };
  const plural = (n, one, many) => `${grouped(n)} ${n === 1 ? one : many || one + "s"}`;
  const percent = Math.round(100 * A.confidence);

  // --- rows -------------------------------------------------------------------------------------------------------
  // Units of a metric: scores in [0, 1] are shown in per cent and their losses in points, perplexities by their ratio.
  const unitsOf = (groups) => {
    if (groups.some((g) => g.exponential))
      return {
        score: (x) => fixed(Math.exp(x), 2), loss: (x) => 100 * Math.expm1(x), margin: (m) => Math.log1p(m), digits: 2,
        name: "% of perplexity", short: "%", of: (m) => `${fixed(100 * m, 1)} % of perplexity`,
      };
    const share = groups.every((g) => g.rows.every((r) => !r.score || (r.score.mean >= 0 && r.score.mean <= 1)));
    if (share)
      return {
        score: (x) => fixed(100 * x, 1), loss: (x) => 100 * x, margin: (m) => m, digits: 1, name: "points",
        short: "pt", of: (m) => `${fixed(100 * m, 1)} ${m === 0.01 ? "point" : "points"}`,
      };
    return {
      score: (x) => small(x), loss: (x) => x, margin: (m) => m, digits: 3, name: `of the metric`, short: "",
      of: (m) => fixed(m, 3),
    };
  };

  // "uniform K4 V2", and as many parameters as it takes to tell configurations of a scheme apart.
  const labels = new Map();
  const families = new Map();
  {
    const seen = new Map();
    for (const group of A.groups)
      for (const row of group.rows) if (!seen.has(row.configuration)) seen.set(row.configuration, row);
    const byName = new Map(), byScheme = new Map();
    for (const row of seen.values()) {
      const name = row.is_reference ? row.scheme : `${row.scheme} K${row.k_bits} V${row.v_bits}`;
      byName.set(name, [...(byName.get(name) || []), row]);
      byScheme.set(row.scheme, [...(byScheme.get(row.scheme) || []), row]);
    }
    const differing = (rows) => {
      const names = [...new Set(rows.flatMap((row) => Object.keys(row.scheme_params)))];
      return names.filter((name) => new Set(rows.map((row) => row.scheme_params[name])).size > 1);
    };
    const text = (row, names) => names.map((name) => ` ${name}=${row.scheme_params[name] ?? "none"}`).join("");
    for (const [name, rows] of byName) {
      const names = differing(rows);
      for (const row of rows) labels.set(row.configuration, name + text(row, names));
    }
    for (const rows of byScheme.values()) {
      const names = differing(rows).filter((name) => !/^[kv]_/.test(name));
      for (const row of rows) families.set(row.configuration, row.scheme + text(row, names));
    }
  }
  const labelOf = (configuration) => labels.get(configuration) || configuration;

  const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
  const failureOf = (failures) => {
    if (!failures || !failures.modes.length) return "";
    const [mode, items] = failures.modes[0];
    return `${mode} (${items} of ${failures.items})`;
  };
  // "needle at 1024 tokens", and as many parameters as it takes to tell groups of a task apart.
  const groupNames = new Map();
  {
    const alike = new Map();
    const plain = (g) => `${g.task} at ${grouped(g.tokens)} tokens`;
    for (const g of A.groups) {
      const key = [g.model, g.view, plain(g)].join("\n");
      alike.set(key, [...(alike.get(key) || []), g]);
    }
    for (const groups of alike.values()) {
      const names = [...new Set(groups.flatMap((g) => Object.keys(g.task_params)))]
        .filter((name) => new Set(groups.map((g) => g.task_params[name])).size > 1);
      const seeds = new Set(groups.map((g) => g.seed)).size > 1, versions = new Set(groups.map((g) => g.task_version)).size > 1;
      for (const g of groups)
        groupNames.set(g, plain(g) + names.map((name) => ` ${name}=${g.task_params[name] ?? "none"}`).join("") +
          (versions ? ` v${g.task_version}` : "") + (seeds ? ` seed ${g.seed}` : ""));
    }
  }
  const groupName = (g) => groupNames.get(g);
  const short = (hash) => (/^[0-9a-f]{40,}$/.test(hash) ? hash.slice(0, 12) : hash);

  const rowOf = (scope, source, verdict, parts) => ({
    configuration: source.configuration, label: labelOf(source.configuration), family: families.get(source.configuration),
    scheme: source.scheme, k: source.k_bits, v: source.v_bits, gap: source.gap, bits: source.effective_bits,
    bytes: source.bytes_per_token, ms: source.decode_ms_per_token, loss: source.loss, bounds: verdict,
    n: source.loss ? source.loss.n : parts.length ? parts[0].n : null,
    own: source.loss ? source.loss.own_mean : null, failure: failureOf(source.failures),
    kl: mean(parts.map((p) => p.kl && p.kl.mean).filter(known)),
    klTail: Math.max(...parts.map((p) => (p.kl ? p.kl.p99 : NaN))), units: scope.units,
    warnings: [...new Set(parts.flatMap((p) => p.warnings))], parts,
  });

  // A scope is a pool or a group: what verdict, charts and tables are of.
  const scopes = [];
  const models = new Set(A.groups.map((g) => `${g.model}, view ${g.view}`));
  const where = (x) => (models.size > 1 ? `${x.model}, view ${x.view}: ` : "");
  const kindName = (kind) => (kind ? kind.replace(/_/g, " ") : "all tasks with scores");
  const addScope = (scope) => {
    scope.id = String(scopes.length);
    scope.units = unitsOf(scope.groups);
    scope.exponential = scope.groups.some((g) => g.exponential);
    scopes.push(scope);
  };
  A.pools.forEach((pool, p) => {
    const groups = pool.groups.map((g) => A.groups[g]);
    addScope({ kind: "pool", name: kindName(pool.kind), title: `${where(pool)}${kindName(pool.kind)}`, model: pool.model,
               view: pool.view, groups, source: pool, index: p });
  });
  A.groups.forEach((group, g) => addScope({ kind: "group", name: groupName(group), title: `${where(group)}${groupName(group)}`,
                                            model: group.model, view: group.view, groups: [group], source: group, index: g }));
  const rowsOf = (scope) => {
    if (scope.rows) return scope.rows;
    if (scope.kind === "pool") {
      const found = scope.groups.map((g) => new Map(g.rows.map((r) => [r.configuration, r])));
      scope.rows = scope.source.rows.map((r, i) =>
        rowOf(scope, r, P.verdicts.pools[scope.index][i], found.map((m) => m.get(r.configuration)).filter(Boolean)));
    } else {
      scope.rows = scope.source.rows.filter((r) => !r.is_reference).map((r) => {
        const row = rowOf(scope, r, P.verdicts.groups[scope.index][scope.source.rows.indexOf(r)], [r]);
        if (!row.loss && r.score) row.own = r.score.mean;
        return row;
      });
    }
    return scope.rows;
  };
  const referencesOf = (scope) => scope.groups.map((g) => g.rows.find((r) => r.is_reference)).filter((r) => r && known(r.effective_bits));
  const fullBits = (scope) => mean(referencesOf(scope).map((r) => r.effective_bits));
  const fullBytes = (scope) => mean(referencesOf(scope).map((r) => r.bytes_per_token));

  const VERDICTS = { pass: "may be used", fail: "loses more", undecided: "undecided", gap: "not measured" };
  const verdictOf = (row, margin) => {
    if (!row.bounds) return "gap";
    const [low, high, , suggested] = row.bounds;
    if (margin === "suggested") return suggested;
    const most = row.units.margin(Number(margin));
    return known(high) && high < most ? "pass" : known(low) && low > most ? "fail" : "undecided";
  };

  // What losses are shown as.
  const lossText = (row) => (row.loss && known(row.loss.loss) ? fixed(row.units.loss(row.loss.loss), row.units.digits) : NONE);
  const intervalText = (row) =>
    row.loss && known(row.loss.low)
      ? `${fixed(row.units.loss(row.loss.low), row.units.digits)} to ${fixed(row.units.loss(row.loss.high), row.units.digits)}`
      : NONE;
  const inUnits = (row, x) => (known(x) ? fixed(row.units.loss(x), row.units.digits) : NONE);
  // The smallest loss that the comparison would have seen. Where no item differs in anything there is no spread to tell
  // it from: then the smallest margin that a configuration without loss passes with as many items.
  const detectableOf = (row) => (!row.loss ? null : row.loss.detectable > 0 || !row.bounds ? row.loss.detectable : row.bounds[4]);
  const smaller = (row, scope) => (known(row.bytes) && row.bytes > 0 && known(fullBytes(scope)) ? fullBytes(scope) / row.bytes : null);

  const state = { scope: scopes[0], margin: "suggested", sort: "bits", descending: false, text: "", scheme: "", verdict: "" };
  const listeners = [];
  const changed = () => listeners.forEach((listener) => listener());

  const field = (label, control) => el("label", { class: "field" }, el("span", null, label), control);
  const select = (options, value, onchange, attributes) => {
    const node = el("select", { ...attributes, onchange: () => onchange(node.value) });
    const add = (parent, list) => {
      for (const option of list)
        if (option.options) {
          const inside = el("optgroup", { label: option.label });
          add(inside, option.options);
          parent.append(inside);
        } else parent.append(el("option", { value: option.value, selected: option.value === value }, option.label));
    };
    add(node, options);
    return node;
  };
  // A table that scrolls inside its own box when it is wider than the page; the keyboard scrolls it too.
  const scroller = (label, table) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);

  // Long lists show their beginning; the rest is one button away.
  const grow = (body, rows, make, first, step) => {
    let shown = 0;
    const more = el("button", { type: "button", class: "more" });
    const add = (count) => {
      const from = shown;
      for (; shown < Math.min(rows.length, from + count); ++shown) body.append(make(rows[shown]));
      more.hidden = shown >= rows.length;
      more.textContent = `Show ${grouped(Math.min(step, rows.length - shown))} more of ${grouped(rows.length)}`;
    };
    more.addEventListener("click", () => add(step));
    add(first);
    return more;
  };

  // --- verdict ----------------------------------------------------------------------------------------------------
  const cell = (text, className, title) => el("td", { class: className || null, title: title || null }, text);
  const configurationCell = (row) =>
    el("th", { scope: "row" }, el("button", { type: "button", class: "link", title: `${row.configuration}: see its samples`,
                                              onclick: () => openSamples(row.configuration) }, row.label));

  const verdictTable = (scope, kind, rows) => {
    if (!rows.length) return null;
    const heads = [["Configuration", ""], ["Bits", "number"], ["Smaller by", "number"], ["B/token", "number"],
                   [`Loss, ${scope.units.short}`, "number"], [`${percent} % interval`, "number"]];
    if (kind === "pass") heads.push(["At most (95 %)", "number"]);
    if (kind === "fail") heads.push(["At least (95 %)", "number"]);
    if (kind === "undecided") heads.push(["Would have seen", "number"], ["Items needed", "number"]);
    heads.push([kind === "fail" ? "Mostly" : "Lost / gained", kind === "fail" ? "" : "number"], ["n", "number"]);
    const body = el("tbody");
    const make = (row) => {
      const [low, high, , , , needed] = row.bounds;
      const times = smaller(row, scope);
      const cells = [configurationCell(row), cell(fixed(row.bits, 2), "number"), cell(times ? `${fixed(times, 1)} ×` : NONE, "number"),
                     cell(grouped(row.bytes), "number"), cell(lossText(row), "number strong"), cell(intervalText(row), "number")];
      if (kind === "pass") cells.push(cell(inUnits(row, high), "number"));
      if (kind === "fail") cells.push(cell(inUnits(row, low), "number"));
      if (kind === "undecided") cells.push(cell(inUnits(row, detectableOf(row)), "number"),
                                           cell(state.margin === "suggested" && needed > 0 ? grouped(needed) : NONE, "number"));
      cells.push(kind === "fail" ? cell(row.failure || NONE, "note") : cell(`${row.loss.lost} / ${row.loss.gained}`, "number"),
                 cell(grouped(row.loss.n), "number"));
      return el("tr", null, cells);
    };
    const more = grow(body, rows, make, 8, 50);
    const titles = { pass: "May be used", fail: "Lose more than that", undecided: "Undecided" };
    const table = el("table", { class: "rows" },
      el("caption", null, el("strong", { class: `mark ${kind}` }, titles[kind]), ` ${grouped(rows.length)}`),
      el("thead", null, el("tr", null, heads.map(([text, c]) => el("th", { scope: "col", class: c || null }, text)))), body);
    return el("div", { class: "block" }, scroller(titles[kind], table), more);
  };

  const marginText = (scope) => {
    if (state.margin !== "suggested") return `a margin of ${scope.units.of(Number(state.margin))}`;
    return "the suggested margins (" + P.margins.map((m) => `${m.bits} bits: ${fixed(100 * m.loss, 1)}`).join(", ") +
           ` ${scope.exponential ? "% of perplexity" : "points"})`;
  };

  const verdictSection = () => {
    const heading = el("h1", { id: "verdict-title" });
    const lead = el("p", { class: "lead" });
    const best = el("p", { class: "best", "aria-live": "polite" });
    const choice = el("p", { class: "small", id: "choice" });
    const compared = el("dl", { class: "facts" });
    const blocks = el("div");
    const pools = scopes.filter((s) => s.kind === "pool"), groups = scopes.filter((s) => s.kind === "group");
    const option = (s) => ({ value: s.id, label: s.title });
    const scopeSelect = select([{ label: "Pooled", options: pools.map(option) }, { label: "One task", options: groups.map(option) }],
                               state.scope.id, (id) => { state.scope = scopes[Number(id)]; changed(); }, { id: "scope" });
    const marginSelect = select(
      [{ value: "suggested", label: "as suggested, by bits" }].concat(
        ["0.005", "0.01", "0.02", "0.04", "0.1"].map((m) => ({ value: m, label: `${fixed(100 * Number(m), 1)} points or %` }))),
      state.margin, (m) => { state.margin = m; changed(); }, { id: "margin" });
    const fact = (name, ...values) => el("div", null, el("dt", null, name), el("dd", null, values));

    const draw = () => {
      const scope = state.scope, rows = rowsOf(scope);
      const by = { pass: [], fail: [], undecided: [], gap: [] };
      for (const row of rows) by[verdictOf(row, state.margin)].push(row);
      const order = (a, b) => (a.bits ?? 99) - (b.bits ?? 99) || (a.loss?.loss ?? 0) - (b.loss?.loss ?? 0);
      for (const list of Object.values(by)) list.sort(order);
      const compares = rows.length - by.gap.length;
      heading.textContent = !rows.length ? "Nothing to compare with full precision"
        : by.pass.length ? `${by.pass.length} of ${plural(compares, "configuration")} may be used`
        : by.undecided.length ? `No configuration is shown to be safe, ${grouped(by.undecided.length)} of ${grouped(compares)} are undecided`
        : `None of ${plural(compares, "configuration")} may be used`;
      lead.replaceChildren(`At ${marginText(scope)}, on ${scope.kind === "pool" ? "the mean over " : ""}`,
        el("strong", null, scope.kind === "pool" ? `${plural(scope.groups.length, "task")} (${scope.name})` : scope.name),
        `, paired with full precision item by item.`);
      const first = by.pass[0];
      const times = first && smaller(first, scope);
      const lost = first && first.loss.loss;
      best.hidden = !first && !by.undecided.length;
      const name = (row) => el("strong", null, row.label);
      if (first)
        best.replaceChildren("Smallest that passes: ", name(first), ` at ${fixed(first.bits, 2)} bits per value` +
          (times ? `, ${fixed(times, 1)} times smaller than full precision (${bytes(first.bytes)} a token instead of ${bytes(fullBytes(scope))})` : "") +
          `; it ${lost > 0 ? "loses" : lost < 0 ? "gains" : "loses"} ${inUnits(first, Math.abs(lost))} ${scope.units.name}, at most ${inUnits(first, first.bounds[1])} with 95 % confidence, n = ${grouped(first.n)}.`);
      else if (by.undecided.length) {
        const least = Math.min(...by.undecided.map((r) => r.bounds[5]).filter((x) => x > 0));
        best.replaceChildren(`These ${plural(by.undecided[0].n, "item")} are too few for a verdict: ` +
          `the first undecided configuration would pass a margin of ${inUnits(by.undecided[0], by.undecided[0].bounds[4])} ${scope.units.name} if it lost nothing` +
          (Number.isFinite(least) && state.margin === "suggested" ? `; the nearest verdict takes about ${plural(least, "item")}.` : "."));
      }
      choice.hidden = compares < 2;
      choice.textContent = `Every interval and bound is of one comparison by itself. Picking the best of ${grouped(compares)} configurations ` +
        "on the items that they are judged on flatters the pick, and no interval here allows for that: confirm it on other items. " +
        `p (Holm), in the table, bounds something else: where every p below ${fixed(1 - A.confidence, 2)} is called a difference, ` +
        `the chance that any of the ${grouped(compares)} is called one wrongly is at most ${100 - percent} %.`;
      const asked = scope.groups.reduce((sum, g) => sum + g.items, 0);
      const tasks = new Map();
      for (const g of scope.groups) tasks.set(g.task, [...(tasks.get(g.task) || []), g.tokens]);
      compared.replaceChildren(
        fact("Model", scope.model), fact("View", scope.view),
        fact(tasks.size === 1 ? "Task" : "Tasks", [...tasks].map(([task, tokens]) => `${task} at ${[...new Set(tokens)].map(grouped).join(", ")} tokens`).join("; ")),
        fact("Items", `${grouped(asked)}, each asked under full precision and ${plural(rows.length, "configuration")}`),
        fact("Full precision", `${referencesOf(scope).length && scope.kind === "group" && referencesOf(scope)[0].score ? scope.units.score(referencesOf(scope)[0].score.mean) + (scope.exponential ? " perplexity, " : " %, ") : ""}${known(fullBits(scope)) ? `${fixed(fullBits(scope), 1)} bits per value, ${bytes(fullBytes(scope))} a token` : "not in these results"}`),
        ...(A.allowed.length ? [fact("Allowed to differ", A.allowed.join(", "))] : []));
      const gaps = by.gap.length
        ? el("details", { class: "gaps" }, el("summary", null, `Not measured on all of it: ${grouped(by.gap.length)}`),
             el("ul", null, by.gap.slice(0, 100).map((row) => el("li", null, el("strong", null, row.label), ": ",
               row.gap || (row.loss && row.loss.not_numbers ? `${row.loss.not_numbers} of ${row.loss.n} scores are not numbers` : "no comparison"))),
                by.gap.length > 100 ? el("li", null, `and ${grouped(by.gap.length - 100)} more, see the table`) : null))
        : null;
      const parts = ["pass", "undecided", "fail"].map((kind) => verdictTable(scope, kind, by[kind])).filter(Boolean);
      blocks.replaceChildren(...parts, ...(gaps ? [gaps] : []));
    };
    listeners.push(draw);
    draw();
    return el("section", { id: "verdict", "aria-labelledby": "verdict-title" },
      el("p", { class: "eyebrow" }, "kvsweep report of ", el("bdi", null, A.path)), heading, lead, best, choice,
      el("div", { class: "controls" }, field("Asked of", scopeSelect), field("Bearable loss", marginSelect)), compared, blocks);
  };

  // --- charts -----------------------------------------------------------------------------------------------------
  const schemes = [...new Set(A.groups.flatMap((g) => g.rows.filter((r) => !r.is_reference).map((r) => r.scheme)))];
  const SHAPES = [
    (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`, (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
    (r) => `M0,${-1.3 * r}L${1.2 * r},${r}H${-1.2 * r}Z`, (r) => `M0,${-1.4 * r}L${1.4 * r},0L0,${1.4 * r}L${-1.4 * r},0Z`,
    (r) => `M0,${1.3 * r}L${1.2 * r},${-r}H${-1.2 * r}Z`,
    (r) => `M${-r},${-r / 3}H${-r / 3}V${-r}H${r / 3}V${-r / 3}H${r}V${r / 3}H${r / 3}V${r}H${-r / 3}V${r / 3}H${-r}Z`,
  ];
  const lookOf = (scheme) => {
    const i = Math.max(0, schemes.indexOf(scheme));
    return { colour: `series-${i % 7}`, shape: SHAPES[i % SHAPES.length] };
  };
  const tip = el("div", { class: "tip", role: "status", hidden: true });
  const showTip = (node, lines) => {
    tip.replaceChildren(...lines.map((line, i) => el(i ? "div" : "strong", null, line)));
    tip.hidden = false;
    const at = node.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const x = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), document.documentElement.clientWidth - size.width - 8);
    const above = at.top - size.height - 8;
    tip.style.left = `${x + window.scrollX}px`;
    tip.style.top = `${(above > 4 ? above : at.bottom + 8) + window.scrollY}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  // One tab stop a chart; arrows go through its points.
  const roving = (nodes) => {
    nodes.forEach((node, i) => {
      node.setAttribute("tabindex", i ? "-1" : "0");
      node.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const to = step ? nodes[i + step] : event.key === "Home" ? nodes[0] : event.key === "End" ? nodes[nodes.length - 1] : null;
        if (!to) return;
        event.preventDefault();
        node.setAttribute("tabindex", "-1");
        to.setAttribute("tabindex", "0");
        to.focus();
      });
    });
  };
  const ticks = (low, high, count) => {
    const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const out = [];
    for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + 1e-9 * step; x += step) out.push(Math.abs(x) < step / 1e6 ? 0 : x);
    return { values: out, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  };
  const frame = (width, height, x, y, labels) => {
    const parts = [];
    for (const value of y.ticks.values)
      parts.push(svg("line", { class: value === 0 ? "zero" : "grid", x1: x.from, x2: x.to, y1: y.at(value), y2: y.at(value) }),
                 svg("text", { class: "tick", x: x.from - 8, y: y.at(value) + 4, "text-anchor": "end" }, y.text ? y.text(value) : fixed(value, y.ticks.digits)));
    for (const value of x.ticks.values)
      parts.push(svg("line", { class: "grid", x1: x.at(value), x2: x.at(value), y1: y.from, y2: y.from + 5 }),
                 svg("text", { class: "tick", x: x.at(value), y: y.from + 19, "text-anchor": "middle" }, x.text ? x.text(value) : fixed(value, x.ticks.digits)));
    parts.push(svg("text", { class: "axis", x: (x.from + x.to) / 2, y: height - 4, "text-anchor": "middle" }, labels.x),
               svg("text", { class: "axis", x: x.from - 44, y: 14 }, labels.y));
    return parts;
  };
  const dataTable = (caption, heads, rows) =>
    el("details", { class: "data" }, el("summary", null, "The numbers as a table"),
       scroller(caption, el("table", { class: "rows" }, el("caption", null, caption),
         el("thead", null, el("tr", null, heads.map((h, i) => el("th", { scope: "col", class: i ? "number" : null }, h)))),
         el("tbody", null, rows.map((r) => el("tr", null, r.map((c, i) => (i ? cell(c, "number") : el("th", { scope: "row" }, c)))))))));

  const paretoOf = (points) => points.filter((p) => !points.some((q) => q.bits <= p.bits && q.loss.loss <= p.loss.loss &&
                                                                         (q.bits < p.bits || q.loss.loss < p.loss.loss)));
  const LIMIT = 400;  // points of a chart
  const chartWidth = () => (window.innerWidth < 620 ? 420 : 860);

  const lossChart = () => {
    const box = el("div");
    const draw = () => {
      const scope = state.scope, u = scope.units;
      const all = rowsOf(scope).filter((r) => r.loss && known(r.loss.loss) && known(r.bits));
      const front = paretoOf(all).sort((a, b) => a.bits - b.bits);
      const points = [...new Set([...front, ...all])].slice(0, LIMIT).sort((a, b) => a.bits - b.bits);
      if (!points.length) {
        box.replaceChildren(el("p", { class: "notice" }, "No configuration here was compared with full precision."));
        return;
      }
      const width = chartWidth(), height = 380;
      const values = points.flatMap((r) => [r.loss.loss, r.loss.low, r.loss.high].filter(known).map(u.loss)).concat(0);
      let low = Math.min(...values), high = Math.max(...values);
      const pad = (high - low || 1) * 0.05;
      low -= pad; high += pad;
      const bitsLow = Math.min(...points.map((r) => r.bits)), bitsHigh = Math.max(...points.map((r) => r.bits));
      const x0 = Math.max(0, bitsLow - 0.5), x1 = bitsHigh + 0.5;
      const x = { from: 56, to: width - 16, ticks: ticks(x0, x1, width / 90) }, y = { from: height - 46, to: 26, ticks: ticks(low, high, 6) };
      x.at = (b) => x.from + (b - x0) / (x1 - x0) * (x.to - x.from);
      y.at = (l) => y.from + (l - low) / (high - low) * (y.to - y.from);
      const nodes = points.map((r) => {
        const look = lookOf(r.scheme), onFront = front.includes(r);
        const text = `${r.label}: loss ${lossText(r)} ${u.name}, ${percent} % interval ${intervalText(r)}, ${fixed(r.bits, 2)} bits, n ${r.n}` +
                     (onFront ? ", on the Pareto front" : "");
        const node = svg("g", { class: `point ${look.colour}${onFront ? " front" : ""}`, role: "img", "aria-label": text,
                                transform: `translate(${x.at(r.bits).toFixed(1)},${y.at(u.loss(r.loss.loss)).toFixed(1)})` },
          known(r.loss.low) ? svg("line", { class: "whisker", y1: y.at(u.loss(r.loss.low)) - y.at(u.loss(r.loss.loss)),
                                            y2: y.at(u.loss(r.loss.high)) - y.at(u.loss(r.loss.loss)) }) : null,
          svg("circle", { class: "hit", r: 11 }), svg("path", { d: look.shape(4.6) }));
        const lines = [r.label, `loss ${lossText(r)} ${u.name} (${intervalText(r)})`, `${fixed(r.bits, 2)} bits, ${bytes(r.bytes)} a token, n ${r.n}`,
                       ...(onFront ? ["on the Pareto front"] : [])];
        node.addEventListener("mouseenter", () => showTip(node, lines));
        node.addEventListener("focus", () => showTip(node, lines));
        node.addEventListener("mouseleave", hideTip);
        node.addEventListener("blur", hideTip);
        node.addEventListener("click", () => openSamples(r.configuration));
        node.addEventListener("keydown", (event) => { if (event.key === "Enter") openSamples(r.configuration); });
        return node;
      });
      roving(nodes);
      const step = front.map((r, i) => (i ? `H${x.at(r.bits).toFixed(1)}V${y.at(u.loss(r.loss.loss)).toFixed(1)}` :
                                            `M${x.at(r.bits).toFixed(1)},${y.at(u.loss(r.loss.loss)).toFixed(1)}`)).join("") + (front.length ? `H${x.to}` : "");
      const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
                                 "aria-label": `Loss against effective bits of ${points.length} configurations; arrow keys go from point to point` },
        frame(width, height, x, y, { x: "effective bits per value", y: `loss, ${u.name} (lower is better)` }),
        svg("path", { class: "pareto", d: step }), nodes);
      const used = [...new Set(points.map((r) => r.scheme))];
      const legend = el("ul", { class: "legend" }, used.map((s) => {
        const look = lookOf(s);
        return el("li", null, svg("svg", { class: `key ${look.colour}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { d: look.shape(5) })), s);
      }), el("li", null, svg("svg", { class: "key", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { class: "pareto", d: "M-8,0H8" })), "Pareto front"));
      box.replaceChildren(chart, legend, el("p", { class: "small" },
        `Whiskers: ${percent} % intervals of the paired loss. ${all.length > LIMIT ? `${LIMIT} of ${grouped(all.length)} are drawn, those of the Pareto front first.` : ""}`),
        dataTable("Loss against effective bits", ["Configuration", "Bits", `Loss, ${u.short}`, "Low", "High", "n", "Pareto"],
          points.map((r) => [r.label, fixed(r.bits, 2), lossText(r), inUnits(r, r.loss.low), inUnits(r, r.loss.high), String(r.n), front.includes(r) ? "yes" : ""])));
    };
    listeners.push(draw);
    draw();
    return el("figure", null, el("h3", null, "Loss against effective bits"), box);
  };

  const shade = (node, share, good) => {
    node.classList.add(good ? "gain" : "heat");
    node.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`);
    return node;
  };
  // A grid of numbers is a table: shades are beside the numbers, not instead of them.
  const heatTable = (caption, corner, columns, rows, at, text, share) =>
    el("table", { class: "heatmap" }, el("caption", null, caption),
       el("thead", null, el("tr", null, el("td", { class: "corner" }, corner), columns.map((c) => el("th", { scope: "col" }, c.label)))),
       el("tbody", null, rows.map((r) => el("tr", null, el("th", { scope: "row" }, r.label), columns.map((c) => {
         const value = at(r.value, c.value);
         if (value === undefined) return el("td", { class: "absent", title: "not run" }, NONE);
         const node = el("td", { title: value.title || null }, text(value));
         return known(value.x) ? shade(node, share(value.x), share(value.x) < 0) : node;
       })))));
  const numeric = (a, b) => Number(a) - Number(b) || String(a).localeCompare(String(b), "en", { numeric: true });

  const bitsMaps = () => {
    const box = el("div", { class: "maps" });
    const draw = () => {
      const scope = state.scope, u = scope.units, byFamily = new Map();
      for (const row of rowsOf(scope)) byFamily.set(row.family, [...(byFamily.get(row.family) || []), row]);
      const worst = Math.max(1e-9, ...rowsOf(scope).filter((r) => r.loss && known(r.loss.loss)).map((r) => u.loss(r.loss.loss)));
      const maps = [];
      for (const [family, rows] of byFamily) {
        const ks = [...new Set(rows.map((r) => r.k))].sort(numeric), vs = [...new Set(rows.map((r) => r.v))].sort(numeric);
        if (ks.length < 2 || vs.length < 2) continue;
        const at = (k, v) => {
          const here = rows.filter((r) => r.k === k && r.v === v);
          if (!here.length) return undefined;
          const row = here[0];
          return { row, more: here.length - 1, x: row.loss && known(row.loss.loss) ? u.loss(row.loss.loss) : null,
                   title: here.map((r) => `${r.label}: ${r.loss ? `${lossText(r)} (${intervalText(r)}), n ${r.n}` : r.gap}`).join("\n") };
        };
        maps.push(heatTable(family, "K \\ V", vs.map((v) => ({ value: v, label: String(v) })), ks.map((k) => ({ value: k, label: String(k) })),
                            at, (value) => (known(value.x) ? fixed(value.x, u.digits) : "gap") + (value.more ? "*" : ""), (x) => x / worst));
      }
      box.replaceChildren(...(maps.length ? maps : [el("p", { class: "notice" }, "No scheme here was run at several K and several V bits.")]));
    };
    listeners.push(draw);
    draw();
    return el("figure", null, el("h3", null, "Key bits against value bits"),
              el("p", { class: "small" }, "Loss in the units above; K bits down, V bits across; darker loses more. * several configurations have these bits, the first is shown."), box);
  };

  // Groups that differ in tokens only, where items have a tag "depth".
  const depthMap = () => {
    const lines = new Map();
    A.groups.forEach((g) => {
      if (!g.rows.some((r) => r.by_tag && r.by_tag.depth)) return;
      const rest = Object.entries(g.task_params).filter(([name]) => name !== "tokens").map((p) => p.join("=")).join(" ");
      const key = [g.model, g.view, g.seed, g.task, rest].join("\n");
      lines.set(key, [...(lines.get(key) || []), g]);
    });
    if (!lines.size) return null;
    const list = [...lines.values()];
    const box = el("div", { class: "maps" });
    const chosen = { line: 0, configuration: "", what: "score" };
    const configurations = () => [...new Set(list[chosen.line].flatMap((g) => g.rows.map((r) => r.configuration)))];
    let configurationSelect;
    const holder = el("span");
    const fillConfigurations = () => {
      const names = configurations();
      if (!names.includes(chosen.configuration)) {
        const lossy = list[chosen.line].flatMap((g) => g.rows).filter((r) => !r.is_reference && r.by_tag && r.by_tag.depth);
        chosen.configuration = (lossy[0] || { configuration: names[0] }).configuration;
      }
      configurationSelect = select(names.map((n) => ({ value: n, label: labelOf(n) })), chosen.configuration,
                                   (n) => { chosen.configuration = n; draw(); });
      holder.replaceChildren(field("Configuration", configurationSelect));
    };
    const draw = () => {
      const groups = [...list[chosen.line]].sort((a, b) => a.tokens - b.tokens);
      const values = (g, configuration) => {
        const row = g.rows.find((r) => r.configuration === configuration);
        return new Map(((row && row.by_tag && row.by_tag.depth) || []).map((m) => [m.value, m]));
      };
      const own = groups.map((g) => values(g, chosen.configuration));
      const full = groups.map((g) => values(g, (g.rows.find((r) => r.is_reference) || {}).configuration));
      const depths = [...new Set(own.flatMap((m) => [...m.keys()]))].sort(numeric);
      const scale = unitsOf(groups);
      const share = scale.short === "pt";
      const at = (depth, i) => {
        const m = own[i].get(depth), f = full[i].get(depth);
        if (!m || (chosen.what === "loss" && !f)) return undefined;
        const x = chosen.what === "score" ? m.mean : f.mean - m.mean;
        return { x, title: `n ${m.n}; full precision ${f ? (share ? scale.score(f.mean) : small(f.mean)) : NONE}` };
      };
      const map = heatTable(`${groups[0].task}, ${labelOf(chosen.configuration)}: ${chosen.what}`, "depth \\ tokens",
        groups.map((g, i) => ({ value: i, label: grouped(g.tokens) })), depths.map((d) => ({ value: d, label: d })), at,
        (v) => (known(v.x) ? (share ? fixed(100 * v.x, 0) : small(v.x)) : NONE),
        (x) => (chosen.what === "score" ? (share ? 1 - x : 0) : x));
      const counts = [...new Set(own.flatMap((m) => [...m.values()].map((v) => v.n)))].sort(numeric);
      box.replaceChildren(scroller("Score by depth and length", map), el("p", { class: "small" },
        depths.length ? `${counts[0]}${counts.length > 1 ? ` to ${counts[counts.length - 1]}` : ""} items a cell: single cells are rough.` : "This configuration has no samples here."));
    };
    fillConfigurations();
    draw();
    return el("figure", null, el("h3", null, "Where in the context"),
      el("div", { class: "controls" },
         list.length > 1 ? field("Task", select(list.map((l, i) => ({ value: String(i), label: `${where(l[0])}${l[0].task}` })), "0",
                                                (i) => { chosen.line = Number(i); fillConfigurations(); draw(); })) : null,
         holder, field("Shown", select([{ value: "score", label: "score" }, { value: "loss", label: "loss" }], "score", (w) => { chosen.what = w; draw(); }))), box);
  };

  const klChart = () => {
    const with_ = A.groups.map((g, i) => i).filter((i) => P.kl_by_position[i].some(Boolean));
    if (!with_.length) return P.texts < P.samples
      ? el("figure", null, el("h3", null, "KL by position"), el("p", { class: "notice" }, "Left out: this page keeps only part of the samples' texts, and means over those would mislead."))
      : null;
    const chosen = { group: with_[0], configuration: "" };
    const box = el("div"), holder = el("span");
    const rows = () => A.groups[chosen.group].rows.map((r, i) => ({ row: r, kl: P.kl_by_position[chosen.group][i] })).filter((r) => r.kl && r.kl.kl.some((x) => x > 0));
    const fillConfigurations = () => {
      const list = rows();
      if (!list.some((r) => r.row.configuration === chosen.configuration)) chosen.configuration = list.length ? list[0].row.configuration : "";
      holder.replaceChildren(field("Highlighted", select(list.map((r) => ({ value: r.row.configuration, label: labelOf(r.row.configuration) })),
                                                         chosen.configuration, (c) => { chosen.configuration = c; draw(); })));
    };
    const draw = () => {
      const list = rows().slice(0, LIMIT);
      if (!list.length) { box.replaceChildren(el("p", { class: "notice" }, "KL is 0 at every position.")); return; }
      const width = Math.min(chartWidth(), 620), height = 300;
      const values = list.flatMap((r) => r.kl.kl.filter((x) => x > 0));
      const low = Math.floor(Math.log10(Math.max(1e-8, Math.min(...values)))), high = Math.ceil(Math.log10(Math.max(...values)) + 1e-9);
      const last = Math.max(...list.map((r) => r.kl.width * r.kl.kl.length));
      const x = { from: 56, to: width - 16, ticks: ticks(0, last, Math.min(last, width / 120)), text: (v) => grouped(v) };
      const powers = [];
      for (let p = low; p <= high; ++p) powers.push(p);
      const y = { from: height - 46, to: 26, ticks: { values: powers, digits: 0 }, text: (p) => (p >= -3 && p <= 3 ? String(Number((10 ** p).toFixed(3))) : `1e${signed(String(p))}`) };
      x.at = (p) => x.from + p / last * (x.to - x.from);
      y.at = (p) => y.from + (p - low) / Math.max(1, high - low) * (y.to - y.from);
      const path = (kl) => {
        let d = "", pen = false;
        kl.kl.forEach((value, b) => {
          if (!(value > 0)) { pen = false; return; }
          d += `${pen ? "L" : "M"}${x.at((b + 0.5) * kl.width).toFixed(1)},${y.at(Math.max(low, Math.log10(value))).toFixed(1)}`;
          pen = true;
        });
        return d;
      };
      const top = list.find((r) => r.row.configuration === chosen.configuration);
      const drawn = list.filter((r) => r !== top).concat(top ? [top] : []);
      const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
                                 "aria-label": `KL by position of ${list.length} configurations, ${top ? labelOf(top.row.configuration) : ""} highlighted; numbers below` },
        frame(width, height, x, y, { x: "position after the context", y: "mean KL to full precision, nats (log scale)" }),
        drawn.map((r) => {
          const line = svg("path", { class: r === top ? "line top" : "line", d: path(r.kl) });
          line.addEventListener("mouseenter", () => showTip(line, [labelOf(r.row.configuration)]));
          line.addEventListener("mouseleave", hideTip);
          return line;
        }));
      box.replaceChildren(chart, top ? dataTable(`KL by position, ${labelOf(top.row.configuration)}`, ["Positions from", "KL", "n"],
        top.kl.kl.map((v, b) => [grouped(b * top.kl.width), small(v), grouped(top.kl.n[b])])) : "");
    };
    fillConfigurations();
    draw();
    return el("figure", null, el("h3", null, "KL by position"), el("div", { class: "controls" },
      field("Task", select(with_.map((g) => ({ value: String(g), label: `${where(A.groups[g])}${groupName(A.groups[g])}` })), String(chosen.group),
                           (g) => { chosen.group = Number(g); fillConfigurations(); draw(); })), holder), box);
  };

  const chartsSection = () => el("section", { id: "charts", "aria-labelledby": "charts-title" }, el("h2", { id: "charts-title" }, "Charts"),
    lossChart(), bitsMaps(), el("div", { class: "pair" }, depthMap(), klChart()));

  // --- table ------------------------------------------------------------------------------------------------------
  const COLUMNS = [
    { id: "label", name: "Configuration", key: (r) => r.label },
    { id: "k", name: "K", title: "nominal bits of keys", number: true, key: (r) => r.k, text: (r) => fixed(r.k, r.k % 1 ? 1 : 0) },
    { id: "v", name: "V", title: "nominal bits of values", number: true, key: (r) => r.v, text: (r) => fixed(r.v, r.v % 1 ? 1 : 0) },
    { id: "bits", name: "Bits", title: "effective bits per value, all that is stored counted", number: true, key: (r) => r.bits, text: (r) => fixed(r.bits, 2) },
    { id: "bytes", name: "B/token", title: "bytes of one cache per token", number: true, key: (r) => r.bytes, text: (r) => grouped(r.bytes) },
    { id: "ms", name: "ms/token", title: "decode time per token, batch 1", number: true, key: (r) => r.ms, text: (r) => fixed(r.ms, 1), optional: true },
    { id: "score", name: "Score", title: "mean of the task's metric", number: true, key: (r) => r.own, text: (r) => (known(r.own) ? r.units.score(r.own) : NONE) },
    { id: "loss", name: "Loss", title: "full precision less own, paired", number: true, key: (r) => (r.loss ? r.loss.loss : null), text: lossText, strong: true },
    { id: "interval", name: "Interval", title: `${percent} % interval of the loss`, number: true, key: (r) => (r.loss ? r.loss.high : null), text: intervalText },
    { id: "flips", name: "Lost / gained", title: "items that became worse / better", number: true, key: (r) => (r.loss ? r.loss.lost : null), text: (r) => (r.loss ? `${r.loss.lost} / ${r.loss.gained}` : NONE) },
    { id: "p", name: "p (Holm)", title: "two-sided, adjusted over this table's configurations", number: true, key: (r) => (r.loss ? r.loss.p_adjusted : null),
      text: (r) => (r.loss && known(r.loss.p_adjusted) ? (r.loss.p_adjusted < 0.001 ? "< 0.001" : fixed(r.loss.p_adjusted, 3)) : NONE) },
    { id: "seen", name: "Detectable", title: "the smallest loss that this comparison would have seen (5 % one-sided, power 80 %)", number: true,
      key: detectableOf, text: (r) => inUnits(r, detectableOf(r)) },
    { id: "kl", name: "KL", title: "mean KL to full precision over positions, nats", number: true, key: (r) => r.kl, text: (r) => small(r.kl) },
    { id: "tail", name: "KL p99", title: "99th percentile over positions; of several tasks the largest", number: true, key: (r) => r.klTail, text: (r) => small(r.klTail) },
    { id: "n", name: "n", title: "items", number: true, key: (r) => r.n, text: (r) => grouped(r.n) },
    { id: "verdict", name: "Verdict", key: (r) => Object.keys(VERDICTS).indexOf(verdictOf(r, state.margin)) },
    { id: "note", name: "Note", key: (r) => r.gap || r.failure },
  ];
  const compareKeys = (a, b) => {
    if (!known(a) || a === "") return !known(b) || b === "" ? 0 : 1;  // what there is not goes last either way
    if (!known(b) || b === "") return -1;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  };

  const tablesSection = () => {
    const count = el("p", { class: "small", role: "status", id: "table-count" });
    const caption = el("caption");
    const head = el("tr"), body = el("tbody"), below = el("div");
    const table = el("table", { class: "rows wide", id: "main-table" }, caption, el("thead", null, head), body);
    const filter = el("input", { type: "search", id: "filter", autocomplete: "off", placeholder: "e.g. uniform k_bits=4", oninput: () => { state.text = filter.value; draw(); } });
    const schemeSelect = select([{ value: "", label: "all" }].concat(schemes.map((s) => ({ value: s, label: s }))), "", (s) => { state.scheme = s; draw(); }, { id: "filter-scheme" });
    const verdictSelect = select([{ value: "", label: "all" }].concat(Object.entries(VERDICTS).map(([value, label]) => ({ value, label }))), "",
                                 (v) => { state.verdict = v; draw(); }, { id: "filter-verdict" });
    let columns = COLUMNS;
    const headCells = new Map();
    for (const column of COLUMNS) {
      const button = el("button", { type: "button", class: "sort", title: column.title || null, onclick: () => {
        if (state.sort === column.id) state.descending = !state.descending;
        else { state.sort = column.id; state.descending = false; }
        draw();
      } }, column.name);
      headCells.set(column.id, el("th", { scope: "col", class: column.number ? "number" : null }, button));
    }
    const make = (row) => el("tr", null, columns.map((c) => {
      if (c.id === "label") return configurationCell(row);
      if (c.id === "verdict") { const v = verdictOf(row, state.margin); return el("td", null, el("span", { class: `mark ${v}` }, VERDICTS[v])); }
      if (c.id === "note") {
        const significant = row.loss && row.loss.p_adjusted < 0.05;
        const text = [row.gap, row.loss && row.loss.not_numbers ? `${row.loss.not_numbers} scores are not numbers` : "", row.failure,
                      row.loss && !row.gap && !row.loss.not_numbers && !significant ? "difference not shown" : "", ...row.warnings].filter(Boolean).join("; ");
        return cell(text, "note");
      }
      return cell(c.text(row), `number${c.strong ? " strong" : ""}`);
    }));
    const draw = () => {
      const scope = state.scope, all = rowsOf(scope), words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
      columns = COLUMNS.filter((c) => !c.optional || all.some((r) => known(c.key(r))));
      const rows = all.filter((r) => {
        const text = `${r.label} ${r.configuration} ${r.gap}`.toLowerCase();
        return words.every((w) => text.includes(w)) && (!state.scheme || r.scheme === state.scheme) && (!state.verdict || verdictOf(r, state.margin) === state.verdict);
      });
      const column = COLUMNS.find((c) => c.id === state.sort);
      rows.sort((a, b) => {
        const x = column.key(a), y = column.key(b), order = compareKeys(x, y);
        return state.descending && known(x) && known(y) && x !== "" && y !== "" ? -order : order;
      });
      for (const c of columns) {
        const th = headCells.get(c.id);
        if (state.sort === c.id) th.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        else th.removeAttribute("aria-sort");
      }
      const heads = columns.map((c) => headCells.get(c.id));
      if (heads.length !== head.children.length || heads.some((h, i) => head.children[i] !== h)) head.replaceChildren(...heads);
      body.replaceChildren();
      below.replaceChildren(grow(body, rows, make, 200, 500));
      caption.replaceChildren(`${scope.title}: view ${scope.view}, score ${scope.exponential ? "as perplexity" : scope.units.short === "pt" ? "in per cent" : "as recorded"}, loss in ${scope.units.name}`);
      count.textContent = `${grouped(rows.length)} of ${plural(all.length, "row")}`;
    };
    const noise = el("p", { class: "small" });
    const drawNoise = () => {
      const floors = state.scope.groups.map((g) => g.noise).filter(Boolean);
      noise.textContent = floors.length
        ? `Noise floor, full precision against itself in other batches: mean KL ${small(mean(floors.map((f) => f.kl)))}, largest ${small(Math.max(...floors.map((f) => f.kl_max)))}, ` +
          `${grouped(floors.reduce((s, f) => s + f.top1_flips, 0))} of ${grouped(floors.reduce((s, f) => s + f.positions, 0))} most likely tokens differ.`
        : "Noise floor: none, a row does not depend on its batch, bit for bit.";
    };
    listeners.push(draw, drawNoise);
    draw();
    drawNoise();
    const perGroup = el("div");
    const drawPerGroup = () => {
      const scope = state.scope;
      if (scope.kind !== "pool" || scope.groups.length < 2) { perGroup.replaceChildren(); return; }
      const rows = [...rowsOf(scope)].sort((a, b) => compareKeys(a.bits, b.bits));
      const found = scope.groups.map((g) => new Map(g.rows.map((r) => [r.configuration, r])));
      const units = scope.groups.map((g) => unitsOf([g]));
      const inner = el("tbody");
      const more = grow(inner, rows, (row) => el("tr", null, configurationCell(row), cell(fixed(row.bits, 2), "number"), found.map((m, i) => {
        const r = m.get(row.configuration), u = units[i];
        if (!r || !r.loss || !known(r.loss.loss)) return cell(r ? "gap" : NONE, "number absent", r ? r.gap : "not run");
        const node = cell(fixed(u.loss(r.loss.loss), u.digits), `number${r.loss.p_adjusted < 0.05 ? " strong" : ""}`,
                          `${fixed(u.loss(r.loss.low), u.digits)} to ${fixed(u.loss(r.loss.high), u.digits)}, n ${r.loss.n}, would have seen ${fixed(u.loss(r.loss.detectable), u.digits)}`);
        return node;
      })), 60, 200);
      perGroup.replaceChildren(el("h3", null, "Loss by task"),
        scroller("Loss by task", el("table", { class: "rows" }, el("caption", null, `Loss in ${scope.units.name}; bold where it is shown (p adjusted < 0.05); interval and n on the cell`),
          el("thead", null, el("tr", null, el("th", { scope: "col" }, "Configuration"), el("th", { scope: "col", class: "number" }, "Bits"),
            scope.groups.map((g) => el("th", { scope: "col", class: "number", title: g.title }, `${g.task} ${grouped(g.tokens)}`, el("small", null, `n ${g.items}`))))), inner)), more);
    };
    listeners.push(drawPerGroup);
    drawPerGroup();
    return el("section", { id: "tables", "aria-labelledby": "tables-title" }, el("h2", { id: "tables-title" }, "Tables"),
      el("div", { class: "controls" }, field("Filter", filter), field("Scheme", schemeSelect), field("Verdict", verdictSelect)),
      count, scroller("All configurations", table), below, noise, perGroup);
  };

  // --- samples ----------------------------------------------------------------------------------------------------
  const unpack = async (id) => {
    const node = byId(id);
    if (!node) return null;
    const packed = Uint8Array.from(atob(node.textContent), (c) => c.charCodeAt(0));
    return JSON.parse(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
  };
  const cache = new Map();
  const chunk = (id) => {
    if (!cache.has(id)) {
      if (cache.size > 8) cache.delete(cache.keys().next().value);
      cache.set(id, unpack(id));
    }
    return cache.get(id);
  };
  // Code points that both texts begin with.
  const commonPrefix = (a, b) => {
    let i = 0;
    while (i < a.length && i < b.length && a[i] === b[i]) ++i;
    if (i > 0 && /[\ud800-\udbff]/.test(a[i - 1])) --i;
    return i;
  };
  const VISIBLE = { " ": "␣", "\n": "⏎\n", "\t": "⇥\t", "\r": "␍" };
  const marked = (text, from) => {
    const out = [text.slice(0, from)];
    if (from >= text.length) out.push(el("mark", { class: "first" }, el("span", { class: "ends" }, "ends here")));
    else {
      const first = String.fromCodePoint(text.codePointAt(from));
      out.push(el("mark", { class: "first" }, VISIBLE[first] || first), el("mark", { class: "rest" }, text.slice(from + first.length)));
    }
    return out;
  };

  let openSamples = () => {};
  const samplesSection = () => {
    const usable = A.groups.map((g, i) => i).filter((g) => A.groups[g].rows.some((r, i) => byId(`point-${g}-${i}`)));
    const title = el("h2", { id: "samples-title" }, "Samples");
    if (!usable.length) return el("section", { id: "samples", "aria-labelledby": "samples-title" }, title, el("p", { class: "notice" }, "These results have no samples."));
    const chosen = { group: usable[0], row: 0, show: "changed", text: "", list: [], at: 0 };
    const list = el("div", { class: "list" }), detail = el("div", { class: "detail", id: "sample-detail", tabindex: "-1" });
    const count = el("p", { class: "small", role: "status", id: "sample-count" });
    const rowHolder = el("span");
    const SHOW = { all: "all", changed: "lost or gained", lost: "lost", gained: "gained", diverged: "texts that diverge" };
    const rowsHere = () => A.groups[chosen.group].rows.map((r, i) => i).filter((i) => byId(`point-${chosen.group}-${i}`));
    const fillRows = () => {
      const rows = rowsHere();
      if (!rows.includes(chosen.row) || A.groups[chosen.group].rows[chosen.row].is_reference)
        chosen.row = rows.find((i) => !A.groups[chosen.group].rows[i].is_reference) ?? rows[0];
      rowHolder.replaceChildren(field("Configuration", select(rows.map((i) => ({ value: String(i), label: labelOf(A.groups[chosen.group].rows[i].configuration) })),
        String(chosen.row), (i) => { chosen.row = Number(i); load(); }, { id: "sample-row" })));
    };
    const showSelect = select(Object.entries(SHOW).map(([value, label]) => ({ value, label })), chosen.show, (s) => { chosen.show = s; draw(); }, { id: "sample-show" });
    const groupSelect = select(usable.map((g) => ({ value: String(g), label: `${where(A.groups[g])}${groupName(A.groups[g])}` })), String(chosen.group),
                               (g) => { chosen.group = Number(g); fillRows(); load(); }, { id: "sample-group" });
    const search = el("input", { type: "search", id: "sample-search", autocomplete: "off", placeholder: "id, tag or text", oninput: () => { chosen.text = search.value; draw(); } });

    let ticket = 0, samples = [];
    const load = async () => {
      const mine = ++ticket, g = chosen.group, group = A.groups[g];
      const reference = group.rows.findIndex((r) => r.is_reference);
      count.textContent = "Unpacking …";
      let parts;
      try {
        parts = await Promise.all([chunk(`items-${g}`), chunk(`point-${g}-${chosen.row}`), reference >= 0 ? chunk(`point-${g}-${reference}`) : null]);
      } catch (error) {
        if (mine !== ticket) return;
        count.textContent = `The samples cannot be unpacked here: ${error.message}`;
        return;
      }
      if (mine !== ticket) return;
      const [items, own, full] = parts, metric = group.metric;
      const fullAt = new Map(full ? (full.item || full.kl.map((x, i) => i)).map((item, i) => [item, i]) : []);
      samples = own.kl.map((kl, i) => {
        const item = own.item ? own.item[i] : i, f = fullAt.get(item);
        const before = known(f) && full.scores[metric] ? full.scores[metric][f] : null, after = own.scores[metric] ? own.scores[metric][i] : null;
        const worse = known(before) && known(after) ? (group.higher_is_better ? before - after : after - before) : 0;
        const fullText = items.text[item], text = own.text[i] === null ? fullText : own.text[i];
        return { id: items.id[item], tags: Object.entries(items.tags).map(([name, values]) => [name, values[item]]).filter(([, v]) => v !== null),
                 context: items.context[item], before, after, worse, fullText, text, kept: own.text[i] !== 0, kl, klMax: own.kl_max[i],
                 divergence: own.divergence[i], generated: own.generated[i], index: i,
                 scores: Object.entries(own.scores).map(([name, values]) => [name, known(f) && full.scores[name] ? full.scores[name][f] : null, values[i]]) };
      });
      draw();
    };
    const passes = (s) => {
      if (chosen.show === "changed" && s.worse === 0) return false;
      if (chosen.show === "lost" && !(s.worse > 0)) return false;
      if (chosen.show === "gained" && !(s.worse < 0)) return false;
      if (chosen.show === "diverged" && !(s.divergence >= 0 || (s.kept && s.fullText !== null && s.text !== s.fullText))) return false;
      const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) return true;
      const text = `${s.id} ${s.tags.map((t) => t.join("=")).join(" ")} ${s.kept ? s.text : ""} ${s.fullText || ""}`.toLowerCase();
      return words.every((w) => text.includes(w));
    };
    const scoreText = (x) => (known(x) ? String(Number(x.toFixed(4))).replace("-", "−") : NONE);
    const changeOf = (s) => (s.worse > 0 ? "lost" : s.worse < 0 ? "gained" : "same");

    const show = (s, focus) => {
      chosen.at = chosen.list.indexOf(s);
      for (const button of list.querySelectorAll("button[data-sample]")) button.setAttribute("aria-current", button.dataset.sample === String(s.index) ? "true" : "false");
      const group = A.groups[chosen.group], row = group.rows[chosen.row];
      const differs = s.kept && s.fullText !== null && s.text !== s.fullText, from = differs ? commonPrefix(s.fullText, s.text) : -1;
      const pane = (name, text, kept) => el("div", { class: "text" }, el("h4", null, name),
        !kept ? el("p", { class: "notice" }, "Not kept in this page (see the notice above).")
        : text === null ? el("p", { class: "notice" }, "Full precision has no such sample.")
        : text === "" && !differs ? el("p", { class: "notice" }, "No text: nothing was generated or kept.")
        : el("pre", { dir: "auto", tabindex: "0" }, differs ? marked(text, from) : text));
      const step = (by, label) => el("button", { type: "button", disabled: !chosen.list[chosen.at + by], onclick: () => show(chosen.list[chosen.at + by], true) }, label);
      const where_ = s.divergence >= 0 ? `first divergence at generated token ${s.divergence} of ${s.generated}`
        : differs ? "texts differ" : s.text === "" ? "" : "texts are the same";
      detail.replaceChildren(
        el("div", { class: "detail-head" }, el("h3", null, el("bdi", null, s.id), " ", el("span", { class: `mark ${{ lost: "fail", gained: "pass", same: "undecided" }[changeOf(s)]}` }, changeOf(s))),
           el("div", { class: "steps" }, step(-1, "Previous"), step(1, "Next"))),
        el("p", { class: "small" }, [`${labelOf(row.configuration)}`, `KL ${small(s.kl)} (largest ${small(s.klMax)})`, s.context >= 0 ? `${grouped(s.context)} tokens of context` : "", where_].filter(Boolean).join(" · ")),
        el("dl", { class: "facts tight" }, s.scores.map(([name, before, after]) => el("div", null, el("dt", null, name), el("dd", null, `${scoreText(before)} → ${scoreText(after)}`))),
           s.tags.map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, el("bdi", null, value))))),
        el("div", { class: "texts" }, pane("Full precision", s.fullText, true), pane(labelOf(row.configuration), s.text, s.kept)));
      if (focus) detail.focus({ preventScroll: true });
    };
    const draw = () => {
      chosen.list = samples.filter(passes);
      const body = el("tbody");
      const more = grow(body, chosen.list, (s) => el("tr", null,
        el("th", { scope: "row" }, el("button", { type: "button", class: "link", "data-sample": String(s.index), onclick: () => show(s, true) }, el("bdi", null, s.id))),
        cell(`${scoreText(s.before)} → ${scoreText(s.after)}`, "number"), cell(small(s.kl), "number"), cell(s.divergence >= 0 ? String(s.divergence) : NONE, "number")), 100, 400);
      count.textContent = `${grouped(chosen.list.length)} of ${plural(samples.length, "sample")}` +
        (samples.some((s) => !s.kept) ? `; ${grouped(samples.filter((s) => s.kept).length)} with their text` : "");
      list.replaceChildren(scroller("Samples", el("table", { class: "rows" }, el("thead", null, el("tr", null, el("th", { scope: "col" }, "Sample"),
        el("th", { scope: "col", class: "number", title: `${A.groups[chosen.group].metric}, full precision → own` }, "Score"), el("th", { scope: "col", class: "number" }, "KL"),
        el("th", { scope: "col", class: "number", title: "generated token at which the texts part" }, "Parts at"))), body)), more);
      if (chosen.list.length) show(chosen.list[0], false);
      else detail.replaceChildren(el("p", { class: "notice" }, samples.length ? "No sample is like that; choose another selection." : "No samples."));
    };
    openSamples = (configuration) => {
      const scope = state.scope;
      const g = scope.groups.map((x) => A.groups.indexOf(x)).find((i) => A.groups[i].rows.some((r, j) => r.configuration === configuration && byId(`point-${i}-${j}`)));
      if (g === undefined) return;
      chosen.group = g;
      chosen.row = A.groups[g].rows.findIndex((r) => r.configuration === configuration);
      groupSelect.value = String(g);
      fillRows();
      load();
      byId("samples").scrollIntoView();
      byId("sample-row").focus({ preventScroll: true });
    };
    const section = el("section", { id: "samples", "aria-labelledby": "samples-title" }, title,
      el("p", { class: "small" }, "Both texts, from their first difference on marked. Prompts are not stored; an item's id, tags and the sweep's seed make them again."),
      P.texts < P.samples ? el("p", { class: "notice" }, `${grouped(P.samples)} samples are more than this page keeps texts of (${grouped(P.texts_limit)}): every point keeps the same number, ` +
        `lost and gained ones first, then those that diverge: ${grouped(P.texts)} in all. Scores are of all samples.`) : null,
      el("div", { class: "controls" }, field("Task", groupSelect), rowHolder, field("Show", showSelect), field("Search", search)), count,
      el("div", { class: "browser" }, list, detail));
    fillRows();
    // Unpacked when somebody comes near.
    if ("IntersectionObserver" in window) {
      const watcher = new IntersectionObserver((entries) => {
        if (!entries.some((e) => e.isIntersecting)) return;
        watcher.disconnect();
        if (!ticket) load();
      }, { rootMargin: "600px" });
      watcher.observe(section);
    } else load();
    return section;
  };

  // --- provenance -------------------------------------------------------------------------------------------------
  const provenanceSection = () => {
    const fact = (name, value) => (value ? el("div", null, el("dt", null, name), el("dd", null, el("bdi", null, value))) : null);
    const shell = (text) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`);
    const makers = P.provenance.slice(0, 20);
    const rules = ["model", "weights", "data", "device", "dtype", "torch", "deterministic"];
    const distinct = (name) => [...new Set(A.groups.map((g) => g.rules[name]).filter(Boolean))];
    const lines = [...new Set(makers.flatMap((m) => [m.commit ? `git checkout ${shell(m.commit.split(",")[0])}` : "", m.command]).filter(Boolean))];
    return el("section", { id: "provenance", "aria-labelledby": "provenance-title" }, el("h2", { id: "provenance-title" }, "Provenance"),
      makers.map((m) => el("dl", { class: "facts" }, fact("Records", `${grouped(m.records)}, ${m.first}${m.last !== m.first ? ` to ${m.last}` : ""}`),
        fact("Version", m.version), fact("Commit", m.commit), fact("Machine", `${m.host}, ${m.cpu}, ${m.threads} threads`),
        fact("Computed by", `torch ${m.torch}, ${m.device}, ${m.dtype}; the same bits in any batch: ${m.deterministic}`), fact("Weights", m.weights))),
      P.provenance.length > makers.length ? el("p", { class: "notice" }, `${grouped(P.provenance.length - makers.length)} more machines or commands are not shown.`) : null,
      el("dl", { class: "facts" }, rules.map((name) => (distinct(name).length > 1 ? fact(name, distinct(name).map(short).join(", ")) : null)),
         fact("Statistics", `${percent} % intervals; ${grouped(A.resamples)} resamples; verdicts at 95 %, one-sided`)),
      el("h3", null, "To make it again"),
      el("pre", { class: "commands", tabindex: "0" }, lines.concat(`kvsweep report ${shell(A.path)} --html page.html`).join("\n")));
  };

  const main = byId("main");
  main.replaceChildren(verdictSection(), chartsSection(), tablesSection(), samplesSection(), provenanceSection());
  document.body.append(tip);
  document.title = `kvsweep: ${A.path}`;
  let wide = chartWidth();
  window.addEventListener("resize", () => { if (chartWidth() !== wide) { wide = chartWidth(); changed(); } });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
