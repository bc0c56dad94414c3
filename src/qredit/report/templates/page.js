"use strict";
// The theme button and the credit viewer. Data is set with textContent and DOM properties alone.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", function () {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const viewer = document.getElementById("viewer");
  const runs = data.runs.filter(function (run) { return run.records.length; });
  if (!viewer || !runs.length) return;

  const POSITIVE = "0, 114, 178";
  const NEGATIVE = "213, 94, 0";
  const STRONGEST = 0.75;

  function make(tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function shown(value) {
    if (value === null) return "none";
    if (value === 0) return "0";
    return String(Number(value.toPrecision(4))).replace("-", "−");
  }

  function spread(pairs) {
    const values = [];
    for (const [value, count] of pairs) for (let n = 0; n < count; n++) values.push(value);
    return values;
  }

  // --- controls

  const controls = {};
  const bar = make("div", "controls");
  function choice(key, label) {
    const box = make("label", "", label);
    const select = make("select");
    select.addEventListener("change", function () { refill(key); });
    controls[key] = select;
    box.append(select);
    bar.append(box);
    return select;
  }
  function fill(select, labels, chosen) {
    select.replaceChildren();
    labels.forEach(function (label, place) {
      const option = make("option", "", label);
      option.value = String(place);
      select.append(option);
    });
    select.value = String(Math.max(0, Math.min(chosen, labels.length - 1)));
  }
  choice("run", "Run");
  choice("record", "Step and question");
  choice("stage", "Stage of the chain");
  choice("sort", "Sorted by");
  choice("scale", "Shading");
  const beside = make("fieldset");
  const body = make("div");
  const reading = make("output");
  reading.id = "reading";
  reading.setAttribute("aria-live", "polite");
  viewer.replaceChildren(bar, beside, body, reading);

  const SORTS = [
    ["log w, the gold answer's likelihood", function (one) { return one.log_w; }],
    ["reward", function (one) { return one.reward; }],
    ["sum of the coefficients", function (one) { return one.credit_sum; }],
    ["order of sampling", null],
  ];
  const SCALES = [
    ["proportional to the coefficient", function (share) { return share; }],
    ["small coefficients raised (fourth root)", function (share) { return Math.pow(share, 0.25); }],
  ];

  function at(key) { return Number(controls[key].value); }
  function run() { return runs[at("run")]; }
  function record() { return run().records[at("record")]; }

  function question(one) {
    const lines = one.prompt.trim().split("\n");
    const line = lines[lines.length - 1];
    return "step " + one.step + " · " + (line.length > 60 ? "…" + line.slice(-60) : line);
  }

  function refill(from, wanted) {
    const want = wanted || {};
    function kept(key, fallback) {
      return want[key] !== undefined ? want[key] : controls[key].value === "" ? fallback : at(key);
    }
    if (from === "all") {
      fill(controls.run, runs.map(function (one) { return one.name; }), kept("run", 0));
      fill(controls.sort, SORTS.map(function (one) { return one[0]; }), kept("sort", 0));
      fill(controls.scale, SCALES.map(function (one) { return one[0]; }), kept("scale", 0));
    }
    if (from === "all" || from === "run") {
      fill(controls.record, run().records.map(question), from === "all" ? kept("record", 0) : 0);
      const stages = record().stages;
      fill(controls.stage, stages.map(function (stage) { return stage === "credit" ? "credit (the coefficient)" : stage; }),
        from === "all" && want.stage !== undefined ? want.stage : stages.length - 1);
      offer(want.beside || []);
    }
    draw();
  }

  function offer(chosen) {
    const legend = make("legend", "", "Beside it, on the same rollouts");
    beside.replaceChildren(legend);
    record().beside.forEach(function (other, place) {
      const label = make("label");
      const box = make("input");
      box.type = "checkbox";
      box.checked = chosen.includes(place);
      box.addEventListener("change", draw);
      label.append(box, " ", other.name);
      beside.append(label);
    });
  }

  // --- rollouts

  function place(one, position) {
    for (const name of ["close", "rationale", "response", "answer", "observation"]) {
      if (one.spans[name].some(function (span) { return span[0] <= position && position < span[1]; })) return name;
    }
    return "other";
  }

  const NAMES = {
    rationale: "rationale", close: "closing", action: "action", response: "sampled answer", answer: "gold answer",
    observation: "observation", other: "other",
  };

  function legendOf(largest) {
    const raise = SCALES[at("scale")][1];
    const scale = make("div", "scale");
    scale.append(make("span", "", shown(-largest)));
    for (let n = -4; n <= 4; n++) {
      const swatch = make("i");
      swatch.style.backgroundColor = colour(n / 4, raise);
      scale.append(swatch);
    }
    scale.append(make("span", "", shown(largest)));
    return scale;
  }

  function colour(share, raise) {
    if (!share) return "transparent";
    return "rgba(" + (share > 0 ? POSITIVE : NEGATIVE) + ", " + (STRONGEST * raise(Math.abs(share))).toFixed(3) + ")";
  }

  function columns() {
    const now = record();
    const stage = Math.min(at("stage"), now.stages.length - 1);
    const own = {
      name: now.objective + ": " + now.stages[stage],
      values: now.rollouts.map(function (one) { return spread(one.values[stage]); }),
    };
    const boxes = Array.from(beside.querySelectorAll("input"));
    const others = now.beside.filter(function (other, number) { return boxes[number] && boxes[number].checked; });
    return [own].concat(others.map(function (other) {
      return { name: other.name, why: other.why, values: other.values && other.values.map(spread) };
    })).map(function (column) {
      const all = column.values ? column.values.flat() : [];
      column.largest = all.reduce(function (most, value) { return Math.max(most, Math.abs(value || 0)); }, 0);
      return column;
    });
  }

  function order(now) {
    const take = SORTS[at("sort")][1];
    const numbered = now.rollouts.map(function (one, number) { return number; });
    if (!take) return numbered;
    function key(number) {
      const value = take(now.rollouts[number]);
      return value === null ? -Infinity : value;
    }
    function reward(number) { return now.rollouts[number].reward || 0; }
    return numbered.sort(function (a, b) {
      if (key(a) !== key(b)) return key(b) > key(a) ? 1 : -1;
      return reward(b) - reward(a) || a - b;
    });
  }

  function strip(now, one, column, number) {
    const values = column.values[number];
    const raise = SCALES[at("scale")][1];
    const box = make("div", "tokens");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", column.name + ", rollout " + (number + 1) + "; arrow keys read the tokens");
    const tokens = [];
    const turns = spread(one.turns);
    const several = one.turns.length > 1;
    let before = null;
    let closed = false; // whether the turn's thinking was: what a turn says behind that, but for the last, is its action
    one.ids.forEach(function (id, position) {
      if (one.cut && one.cut[0] === position) box.append(make("span", "mark", one.cut[1] + " tokens left out"));
      if (turns[position] !== turns[position - 1]) closed = false;
      const part = place(one, position);
      closed = closed || part === "close";
      const where = closed && several && part === "rationale" ? "action" : part;
      if (several && turns[position] !== turns[position - 1]) {
        box.append(make("div", "turn", "turn " + (turns[position] + 1) + " · Σ coefficient " +
          shown(sumOfTurn(values, turns, turns[position])) + (one.cut ? " of the tokens shown" : "")));
        before = null;
      }
      const forced = where === "close" && !one.spans.sampled.some(function (s) { return s[0] <= position && position < s[1]; });
      if (where !== before) box.append(make("span", "mark", forced ? "closing, forced" : NAMES[where]));
      before = where;
      const text = now.texts[id];
      const value = values[position];
      const token = make("span", "token", text === "" ? "∅" : text.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥\t"));
      if (value < 0) token.classList.add("minus");
      if (forced) token.classList.add("forced");
      if (where === "observation") token.classList.add("observed");
      if (value) token.style.backgroundColor = colour(value / column.largest, raise);
      token.dataset.told = "“" + text.replace(/\n/g, "⏎") + "” · id " + id + " · " + NAMES[where] + " · " +
        (several ? "turn " + (turns[position] + 1) + " · " : "") + column.name + " = " + shown(value);
      token.title = token.dataset.told;
      tokens.push(token);
      box.append(token);
    });
    let cursor = -1;
    box.addEventListener("mouseover", function (event) {
      if (event.target.dataset.told) reading.textContent = event.target.dataset.told;
    });
    box.addEventListener("keydown", function (event) {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move || !tokens.length) return;
      event.preventDefault();
      if (cursor >= 0) tokens[cursor].classList.remove("here");
      cursor = Math.max(0, Math.min(tokens.length - 1, cursor + move));
      tokens[cursor].classList.add("here");
      reading.textContent = tokens[cursor].dataset.told;
    });
    return box;
  }

  function sumOfTurn(values, turns, turn) {
    return values.reduce(function (sum, value, position) { return turns[position] === turn ? sum + (value || 0) : sum; }, 0);
  }

  function grid(count) {
    return make("div", "columns " + (count === 1 ? "" : count === 2 ? "n2" : count === 3 ? "n3" : "many"));
  }

  function draw() {
    const now = record();
    const all = columns();
    const parts = [make("h3", "", question(now)), make("pre", "prompt", now.prompt)];
    if (now.gold !== null) parts.push(make("p", "", "Gold answer: " + [now.gold].concat(now.aliases).join(", or ")));
    if (!now.exact) {
      parts.push(make("p", "faint", "Stages that look at the whole optimiser step are shown as this micro-batch alone " +
        "gives them; the coefficient itself is the one that was used."));
    }
    const heads = grid(all.length);
    all.forEach(function (column) {
      const head = make("div");
      head.append(make("div", "head", column.name));
      head.append(column.why ? make("p", "faint", "Not shown: " + column.why + ".") :
        column.largest ? legendOf(column.largest) : make("p", "faint", "Every coefficient is 0."));
      heads.append(head);
    });
    parts.push(heads);
    order(now).forEach(function (number, rank) {
      const one = now.rollouts[number];
      const box = make("article", "rollout");
      const facts = ["#" + (rank + 1), "reward " + shown(one.reward)];
      if (now.likely && one.tail === "answer") {
        facts.push(one.log_w === null ? "w = 0" : "log w " + shown(one.log_w) + " nats (w = " + shown(Math.exp(one.log_w)) + ")");
      }
      if (one.turns.length > 1) facts.push(one.turns.length + " turns");
      facts.push("Σ coefficient " + shown(one.credit_sum));
      if (one.response !== null && one.tail === "answer") facts.push("answered “" + one.response.trim() + "”");
      box.append(make("div", "facts", facts.join(" · ")));
      const line = grid(all.length);
      all.forEach(function (column) {
        line.append(column.values ? strip(now, one, column, number) : make("div", "faint", "—"));
      });
      box.append(line);
      parts.push(box);
    });
    body.replaceChildren.apply(body, parts);
    reading.textContent = "";
  }

  // #credit?run=0&record=3&stage=1&beside=0,2 opens a certain view
  const wanted = {};
  const query = new URLSearchParams(location.hash.split("?")[1] || "");
  query.forEach(function (value, key) {
    if (key === "beside") wanted.beside = value.split(",").map(Number);
    else if (key in controls && /^\d+$/.test(value)) wanted[key] = Number(value);
  });
  refill("all", wanted);
})();
