"use strict";
(() => {
  const main = document.getElementById("compliance");
  const island = document.getElementById("compliance-data");
  const found = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;
  root.lang = "en";
  root.classList.add("c-script");
  document.body.prepend(main);

  // ---- pytest-html's own script draws every row at once, which takes long where there are thousands: it waits until
  // its table is unfolded. A browser that runs it all the same shows the same page, only later.
  let theirs = null;
  const SMALL = 400000;
  const isTheirs = (node) => node.nodeName === "SCRIPT" && node.parentElement?.nodeName === "FOOTER" && !node.dataset.ours;
  const held = () => (document.getElementById("data-container")?.dataset.jsonblob.length ?? 0) > SMALL;
  const hold = (node) => {
    theirs = node;
    node.type = "text/plain";
  };
  const watch = new MutationObserver((records) => {
    for (const record of records) for (const node of record.addedNodes) if (isTheirs(node) && held()) hold(node);
  });
  watch.observe(root, { childList: true, subtree: true });

  const drawTheirs = () => {
    if (!theirs) return;
    const script = document.createElement("script");
    script.dataset.ours = "yes";
    script.textContent = theirs.textContent;
    theirs.replaceWith(script);
    theirs = null;
    mend();
  };

  // ---- small helpers

  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) node.setAttribute(key, "");
      else if (value !== false && value != null) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== "" && child != null));
    return node;
  };
  const DANGER = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
  const hex = (code, width) => code.toString(16).padStart(width, "0");
  const escaped = (char) => {
    const known = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[char];
    const code = char.codePointAt(0);
    return known ?? (code < 256 ? `\\x${hex(code, 2)}` : code < 65536 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`);
  };
  // What could steer a reader's eye is shown as an escape, and nothing is shown without end.
  const shown = (text, limit = 2000) => {
    const cut = text.length > limit ? text.slice(0, limit - 1) : text;
    return cut.replace(DANGER, escaped) + (text.length > limit ? "…" : "");
  };
  // A name without spaces may go on in the next line behind its own marks.
  const named = (text) => {
    const [first, ...others] = shown(text, 200).split(/(?<=[_./-])(?=\w)/);
    return make("bdi", { class: "c-entity" }, first, ...others.flatMap((part) => [make("wbr"), part]));
  };
  // What stands between backticks is there to be copied.
  const prose = (text, limit = 2000) =>
    lines(text, limit).split(/`([^`\n]+)`/).map((part, at) => (at % 2 ? make("code", {}, part) : part));
  const lines = (text, limit = 8000) => text.split("\n").map((line) => shown(line, limit)).join("\n");
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 1));

  // ---- the findings

  const RANK = { critical: 0, high: 1, medium: 2, low: 3 };
  const data = JSON.parse(island.textContent);
  const items = [];
  for (const result of data.results) for (const finding of result.findings) items.push({ result, finding, text: null });
  const rank = (item) => RANK[item.finding.severity] ?? 9;
  items.sort(
    (a, b) =>
      rank(a) - rank(b) ||
      (a.result.policy < b.result.policy ? -1 : a.result.policy > b.result.policy ? 1 : 0) ||
      (a.finding.entity < b.finding.entity ? -1 : a.finding.entity > b.finding.entity ? 1 : 0),
  );
  const wordsOf = (item) => {
    if (item.text === null) {
      const { result, finding } = item;
      const parts = [finding.text, result.policy, result.title, finding.experiment, finding.owner, finding.remedy];
      parts.push(finding.advice, finding.code, finding.fingerprint, finding.toml);
      item.text = parts.join("\n").toLowerCase();
    }
    return item.text;
  };

  const STEP = 50;
  const place = document.getElementById("c-list");
  const filters = {};
  let matching = items;
  let drawn = 0;
  let body, more, count;

  const values = (of) => [...new Set(items.map(of).filter(Boolean))].sort();
  const choice = (name, label, options) => {
    const select = make("select", { id: `c-by-${name}`, name }, make("option", { value: "" }, "all"));
    for (const option of options) {
      const [value, text] = Array.isArray(option) ? option : [option, shown(option, 60)];
      select.append(make("option", { value }, text));
    }
    filters[name] = select;
    select.addEventListener("change", filter);
    return make("label", { class: "c-choice" }, make("span", {}, label), select);
  };

  const matches = (item, words, by) => {
    const { result, finding } = item;
    return (
      (!by.severity || finding.severity === by.severity) &&
      (!by.rule || result.policy === by.rule) &&
      (!by.owner || finding.owner === by.owner) &&
      (!by.status || finding.status === by.status) &&
      (!by.fixable || finding.fixable === (by.fixable === "yes")) &&
      (!words.length || words.every((word) => wordsOf(item).includes(word)))
    );
  };

  function filter() {
    const by = Object.fromEntries(Object.entries(filters).map(([name, field]) => [name, field.value]));
    const words = by.search.toLowerCase().split(/\s+/).filter(Boolean);
    matching = items.filter((item) => matches(item, words, by));
    count.textContent = `${matching.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} findings`;
    body.replaceChildren();
    drawn = 0;
    draw(STEP);
  }

  const cell = (label, ...children) => make("td", { role: "cell", "data-label": label }, ...children);
  const block = (name, text) => (text ? make("div", { class: name }, shown(text, 400)) : "");
  const toCopy = (text) => {
    if (!text) return "";
    const button = make("button", { type: "button", class: "c-copy" }, "copy");
    button.addEventListener("click", () => navigator.clipboard?.writeText(text).then(() => (button.textContent = "copied")));
    return make("div", { class: "c-block" }, make("pre", { tabindex: "0" }, lines(text)), button);
  };
  const status = ({ status, waiver }) => {
    if (status === "failing") return "";
    const until = waiver ? ` until ${shown(waiver.expires, 40)} by ${shown(waiver.owner, 60)}: ${shown(waiver.reason, 200)}` : "";
    return make("div", { class: "c-status" }, `${status}${until}`);
  };

  const byFix = ({ fixable, remedy, advice }) => {
    const said = remedy === advice ? "" : remedy;
    if (fixable) return remedy;
    return said.startsWith("nothing") ? said : said ? `nothing: ${said}` : "nothing";
  };

  const rowOf = ({ result, finding }) => {
    const what = cell("finding", named(finding.entity), ": ", shown(finding.message));
    if (finding.observed) what.append(block("c-fact", `found: ${finding.observed}`));
    if (finding.expected) what.append(block("c-fact", `expected: ${finding.expected}`));
    if (finding.cause) what.append(block("c-fact", `follows from ${finding.cause[0]} of ${finding.cause[1]}`));
    if (finding.owner) what.append(block("c-fact", `owner: ${finding.owner}${finding.contact ? `, ${finding.contact}` : ""}`));
    what.append(status(finding));
    const rule = make("th", { scope: "row", role: "rowheader", "data-label": "rule", title: shown(result.title, 400) }, shown(result.policy, 60));
    return make(
      "tr",
      { role: "row" },
      cell("severity", make("span", { class: `c-sev c-${RANK[finding.severity] === undefined ? "other" : finding.severity}` }, shown(finding.severity, 30))),
      rule,
      what,
      cell("what --fix would do", make("div", { class: finding.fixable ? "c-yes" : "c-no" }, ...prose(byFix(finding)))),
      cell("what you can do", make("div", { class: "c-advice" }, ...prose(finding.advice, 1000)), toCopy(finding.toml)),
    );
  };

  const draw = (number) => {
    const rows = document.createDocumentFragment();
    for (const item of matching.slice(drawn, drawn + number)) rows.append(rowOf(item));
    drawn = Math.min(matching.length, drawn + number);
    body.append(rows);
    const left = matching.length - drawn;
    more.hidden = left === 0;
    more.textContent = `show ${Math.min(STEP, left)} more of ${left.toLocaleString("en")}`;
  };

  const listFindings = () => {
    if (!place) return;
    const search = make("input", { type: "search", id: "c-by-search", name: "search", autocomplete: "off", spellcheck: "false" });
    search.addEventListener("input", filter);
    filters.search = search;
    const reset = make("button", { type: "reset" }, "clear");
    const form = make(
      "form",
      { class: "c-filters", role: "search", "aria-label": "Findings" },
      make("label", { class: "c-choice c-search" }, make("span", {}, "search"), search),
      choice("severity", "severity", Object.keys(RANK).filter((each) => items.some((item) => item.finding.severity === each))),
      choice("rule", "rule", values((item) => item.result.policy)),
      choice("owner", "owner", values((item) => item.finding.owner)),
      choice("fixable", "fixable", [["yes", "by --fix"], ["no", "by people"]]),
      choice("status", "status", values((item) => item.finding.status)),
      reset,
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    count = make("p", { class: "c-count", role: "status" });
    const heads = ["severity", "rule", "finding", "what --fix would do", "what you can do"];
    const head = make("tr", { role: "row" }, ...heads.map((text) => make("th", { scope: "col", role: "columnheader" }, text)));
    body = make("tbody", { role: "rowgroup" });
    const table = make("table", { class: "c-table c-found", role: "table", "aria-label": "Findings" }, make("thead", { role: "rowgroup" }, head), body);
    more = make("button", { type: "button", class: "c-more" });
    more.addEventListener("click", () => draw(STEP));
    place.append(form, count, table, more);
    filter();
    new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && !more.hidden && draw(STEP), {
      rootMargin: "600px",
    }).observe(more);
    const ahead = (from) => {
      for (const item of items.slice(from, from + 500)) wordsOf(item);
      if (from + 500 < items.length) idle(() => ahead(from + 500));
    };
    idle(() => ahead(0));
  };

  // ---- tabs

  const panels = found(".c-panel", main);
  const tabs = [];
  const select = (number, focus) => {
    panels.forEach((panel, at) => panel.classList.toggle("c-away", at !== number));
    tabs.forEach((tab, at) => {
      tab.setAttribute("aria-selected", String(at === number));
      tab.tabIndex = at === number ? 0 : -1;
    });
    if (focus) tabs[number].focus();
  };
  const KEYS = { ArrowRight: (at) => at + 1, ArrowLeft: (at) => at - 1, Home: () => 0, End: () => -1 };
  const setUpTabs = () => {
    const list = make("div", { class: "c-tabs", role: "tablist", "aria-label": "Parts of the report" });
    panels.forEach((panel, at) => {
      const head = panel.querySelector("h2");
      const tab = make("button", { type: "button", role: "tab", id: `${panel.id}-tab`, "aria-controls": panel.id }, head.textContent);
      tab.addEventListener("click", () => select(at));
      tab.addEventListener("keydown", (event) => {
        const move = KEYS[event.key];
        if (!move) return;
        event.preventDefault();
        select((move(at) + panels.length) % panels.length, true);
      });
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      panel.tabIndex = 0;
      tabs.push(tab);
      list.append(tab);
    });
    document.getElementById("c-panels").prepend(list);
    const named = panels.findIndex((panel) => `#${panel.id}` === location.hash);
    select(Math.max(0, named));
  };

  // A number or a rule of the first screen leads to its findings.
  main.addEventListener("click", (event) => {
    const link = event.target.closest('a[href="#c-findings"]');
    if (!link || !place) return;
    event.preventDefault();
    for (const [name, field] of Object.entries(filters)) field.value = link.dataset[name] ?? "";
    filter();
    select(panels.findIndex((panel) => panel.id === "c-findings"));
    document.querySelector(".c-tabs").scrollIntoView();
    filters.search.focus({ preventScroll: true });
  });

  // ---- what pytest-html made comes last: its table of all checks folded, then its environment

  const mend = () => {
    for (const nested of found("#environment ul > ul")) nested.remove();
    for (const head of found("#results-table th.sortable")) {
      if (head.tabIndex === 0) continue;
      head.tabIndex = 0;
      head.addEventListener("keydown", (event) => event.key === "Enter" && head.click());
    }
  };

  const fold = (key, title, nodes) => {
    const summary = make("summary", {}, make("h2", {}, title));
    const details = make("details", { id: key }, summary, ...nodes.filter(Boolean));
    details.addEventListener("toggle", () => details.open && drawTheirs());
    return details;
  };

  const arrange = () => {
    watch.disconnect();
    for (const image of found("template").flatMap((each) => found("img", each.content))) image.alt = "";
    for (const box of found("input.filter")) box.setAttribute("aria-label", `show ${box.dataset.testResult}`);
    const checks = fold("c-checks", `All checks (${data.results.length.toLocaleString("en")})`, [
      document.querySelector("body > .summary"),
      document.getElementById("results-table"),
    ]);
    const environment = fold("c-environment", "Environment", [
      document.getElementById("environment-header"),
      document.getElementById("environment"),
    ]);
    environment.open = !theirs;
    const title = document.getElementById("title");
    const foot = make("div", { id: "c-foot" }, title, document.querySelector("body > p"));
    main.after(make("section", { id: "c-rest", "aria-label": "All checks and the environment" }, checks, environment, foot));
    mend();
  };

  // ---- printing: all is unfolded, and folded again afterwards

  let folded = [];
  const unfold = () => {
    drawTheirs();
    if (body) draw(matching.length);
    for (const details of found("details:not([open])")) {
      details.open = true;
      folded.push(details);
    }
  };
  window.addEventListener("beforeprint", unfold);
  window.addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
    folded = [];
  });

  setUpTabs();
  listFindings();
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", arrange);
  else arrange();
})();
