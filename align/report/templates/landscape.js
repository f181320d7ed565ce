(() => {
  const data = JSON.parse(document.getElementById("landscapes").textContent);
  const sections = [...document.querySelectorAll("section[data-landscape]")];
  const stacked = matchMedia("(max-width: 979px)");
  const has = (table, key) => key !== undefined && Object.hasOwn(table, key);
  const signs = { win: "✓", lose: "✗", both: "✓✗", neither: "·" };
  let shown = null;

  const address = (which, name, other) =>
    "#" + [which, name, ...(other ? [other] : [])].map(encodeURIComponent).join("/");

  // ---- which loss the address names --------------------------------------------------------------------------------

  const parts = () => {
    try { return decodeURIComponent(location.hash.slice(1)).split("/"); } catch { return [""]; }
  };

  const placed = name => {
    if (has(data.sixteen.nodes, name)) return ["sixteen", name];
    for (const [which, { nodes }] of Object.entries(data))
      for (const [key, node] of Object.entries(nodes)) if (node.title === name) return [which, key];
    return null;
  };

  const read = () => {
    const [first, ...rest] = parts();
    const [which, name] = has(data, first) ? [first, rest.shift()] : placed(first) ?? ["sixteen", undefined];
    const { nodes } = data[which];
    const node = has(nodes, name) ? name : "CPO";
    const other = has(nodes, rest[0]) && rest[0] !== node ? rest[0] : "";
    return { which, name: node, other };
  };

  // ---- comparing ---------------------------------------------------------------------------------------------------

  const element = (tag, ...inside) => {
    const made = document.createElement(tag);
    made.append(...inside);
    return made;
  };

  const entails = (a, b) => (a.top & ~b.top) === 0 && (b.bottom & ~a.bottom) === 0;

  const markOf = (node, row) => {
    const [top, bottom] = [node.top >> row & 1, node.bottom >> row & 1];
    return top ? (bottom ? "both" : "win") : bottom ? "lose" : "neither";
  };

  const verdict = (a, b) => {
    const [ab, ba] = [entails(a, b), entails(b, a)];
    if (ab && ba) return `${a.title} and ${b.title} are the same loss.`;
    if (!ab && !ba) return `Neither of ${a.title} and ${b.title} entails the other.`;
    const [tight, loose] = ab ? [a, b] : [b, a];
    return `${tight.title} entails ${loose.title}, not the reverse: ${tight.title} is the more constrained.`;
  };

  const named = (which, top, bottom) => {
    for (const place of [which, "sixteen"]) {
      if (data[place].atoms.length !== data[which].atoms.length) continue;
      for (const [key, node] of Object.entries(data[place].nodes))
        if (node.top === top && node.bottom === bottom) {
          const link = element("a", node.title);
          link.href = address(place, key);
          return place === which ? [link] : [link, ", which is left out here"];
        }
    }
    return ["no loss of this landscape"];
  };

  const cell = mark => {
    const made = element("span", signs[mark]);
    made.className = `cell ${mark}`;
    return made;
  };

  const differing = (atoms, a, b) => {
    const body = element("tbody");
    for (let row = 2 ** atoms.length - 1; row >= 0; row--) {
      if (markOf(a, row) === markOf(b, row)) continue;
      const values = atoms.map((_, k) => element("td", row >> atoms.length - 1 - k & 1 ? "T" : "F"));
      body.append(element("tr", ...values, ...[a, b].map(node => element("td", cell(markOf(node, row))))));
    }
    const heads = [...atoms, a.title, b.title].map(text => {
      const head = element("th", text);
      head.scope = "col";
      return head;
    });
    const table = element("table", element("thead", element("tr", ...heads)), body);
    table.className = "truth";
    const around = element("div", table);
    around.className = "scroll";
    return around;
  };

  const comparison = ({ which, name, other }) => {
    const { atoms, nodes } = data[which];
    const [a, b] = [nodes[name], nodes[other]];
    return [
      element("p", verdict(a, b)),
      element("p", "Meet, the loosest that entails both: ", ...named(which, a.top & b.top, a.bottom | b.bottom)),
      element("p", "Join, the tightest that both entail: ", ...named(which, a.top | b.top, a.bottom & b.bottom)),
      element("h4", "Rows that differ"),
      differing(atoms, a, b),
    ];
  };

  // ---- showing -----------------------------------------------------------------------------------------------------

  const mark = (one, on) => (on ? one.setAttribute("aria-current", "true") : one.removeAttribute("aria-current"));

  const fill = (section, state) => {
    const { which, name, other } = state;
    for (const panel of section.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== name;
    for (const link of section.querySelectorAll("a[data-node]"))
      link.setAttribute("href", address(which, link.dataset.node, link.dataset.node === other ? "" : other));
    for (const node of section.querySelectorAll(".node")) {
      mark(node, node.dataset.node === name);
      node.classList.toggle("other", node.dataset.node === other);
    }
    for (const line of section.querySelectorAll("polyline[data-below]"))
      line.classList.toggle("near", [line.dataset.below, line.dataset.above].includes(name));
    section.querySelector(".shown").textContent = data[which].nodes[name].title;
    section.querySelector("select").value = other;
    section.querySelector(".verdict-of").replaceChildren(...(other ? comparison(state) : []));
  };

  const show = () => {
    const state = read();
    const inPanel = document.activeElement?.closest(".panel, .verdict-of");
    for (const section of sections) {
      section.hidden = section.dataset.landscape !== state.which;
      if (!section.hidden) fill(section, state);
    }
    for (const link of document.querySelectorAll("[data-switch]")) {
      mark(link, link.dataset.switch === state.which);
      const kept = has(data[link.dataset.switch].nodes, state.name) ? state.name : "CPO";
      link.setAttribute("href", address(link.dataset.switch, kept));
    }
    const panel = document.getElementById(`${state.which}/${state.name}`);
    if (shown && shown.name !== state.name && inPanel) panel.focus({ preventScroll: true });
    if (shown && stacked.matches) {
      const changed = shown.other !== state.other ? panel.parentElement.querySelector(".compare") : panel;
      if (shown.which === state.which) changed.scrollIntoView({ block: "nearest" });
    }
    if (shown) document.getElementById("status").textContent = `${data[state.which].nodes[state.name].title} is shown.`;
    shown = state;
  };

  const compare = other => { location.hash = address(shown.which, shown.name, other); };

  for (const section of sections)
    section.querySelector("select").addEventListener("change", event => compare(event.target.value));
  document.addEventListener("click", event => {
    const node = event.target.closest?.("a[data-node]");
    if (!node || !event.shiftKey) return;
    event.preventDefault();
    compare(node.dataset.node === shown.other ? "" : node.dataset.node);
  });
  addEventListener("hashchange", show);
  document.documentElement.classList.add("scripted");
  for (const part of document.querySelectorAll("[data-script]")) part.hidden = false;
  show();
})();
