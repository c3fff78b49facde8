"use strict";
// Hovering over a node shows its step and lights its path to the root on both disks; a click pins it.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let pinned = null;

  function line(tag, text) {
    const element = document.createElement(tag);
    element.textContent = text; // never innerHTML: the text is a model's
    tip.append(element);
  }

  function fill(node) {
    tip.replaceChildren();
    line("b", node.h);
    const number = (name, value) => (value === null ? [] : [name + " = " + value]);
    line("i", [...number("V", node.V), ...number("v̂", node.v), "visits " + node.N].join("   "));
    if (node.a !== null) line("b", "answer: " + node.a);
    line("pre", node.t);
  }

  function place(event) {
    const gap = 16, width = document.documentElement.clientWidth;
    let left = event.pageX + gap, top = event.pageY + gap;
    if (left + tip.offsetWidth > window.scrollX + width - 8) left = Math.max(8, event.pageX - tip.offsetWidth - gap);
    if (top + tip.offsetHeight > window.scrollY + window.innerHeight - 8) top = event.pageY - tip.offsetHeight - gap;
    tip.style.left = left + "px";
    tip.style.top = Math.max(window.scrollY + 4, top) + "px";
  }

  for (const figure of document.querySelectorAll("figure.tree")) {
    const nodes = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const marks = nodes.map(() => []);
    for (const mark of figure.querySelectorAll("[data-n]")) marks[mark.dataset.n].push(mark);
    for (const mark of figure.querySelectorAll("[data-e]")) marks[mark.dataset.e].push(mark);

    const light = (index, on) => {
      for (let node = index; node >= 0; node = nodes[node].p) {
        for (const mark of marks[node]) mark.classList.toggle("lit", on);
      }
    };
    const hide = () => {
      for (const mark of document.querySelectorAll(".lit")) mark.classList.remove("lit");
      tip.hidden = true;
    };
    const show = (event) => {
      const index = Number(event.target.dataset.n);
      hide();
      fill(nodes[index]);
      tip.hidden = false;
      light(index, true);
      place(event);
    };
    figure.addEventListener("mouseover", (event) => {
      if (event.target.dataset.n !== undefined && pinned === null) show(event);
    });
    figure.addEventListener("mousemove", (event) => {
      if (event.target.dataset.n !== undefined && pinned === null) place(event);
    });
    figure.addEventListener("mouseout", () => {
      if (pinned === null) hide();
    });
    figure.addEventListener("click", (event) => {
      const mark = event.target.dataset.n === undefined ? null : event.target;
      pinned = mark === pinned ? null : mark;
      if (pinned === null) hide();
      else show(event);
    });
  }
})();
