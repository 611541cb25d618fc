"use strict";

const MAX_PX = 32; // screen pixels that one image pixel may fill
const CRISP = 2; // above this many, pixels are shown as squares

for (const viewer of document.querySelectorAll(".viewer")) link(viewer);

// Both panes show one view: zoom, and the corner (x, y) as a share of the pane.
function link(viewer) {
  const panes = viewer.querySelector(".panes");
  const ports = [...viewer.querySelectorAll(".port")];
  const heat = viewer.querySelector(".heat");
  const rows = +viewer.dataset.rows, cols = +viewer.dataset.cols;
  const view = { zoom: 1, x: 0, y: 0 };
  let last = [0, 0]; // where a drag was before

  function draw() {
    view.x = Math.min(0, Math.max(1 - view.zoom, view.x));
    view.y = Math.min(0, Math.max(1 - view.zoom, view.y));
    viewer.style.setProperty("--zoom", view.zoom);
    for (const port of ports) {
      const world = port.firstElementChild;
      world.style.transform =
        `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.zoom})`;
      world.classList.toggle("crisp", view.zoom * fit() > CRISP);
    }
  }

  const fit = () => ports[0].clientWidth / ports[0].querySelector("img").getAttribute("width");

  function zoomAt(factor, u = 0.5, v = 0.5) {
    const zoom = Math.min(Math.max(1, MAX_PX / fit()), Math.max(1, view.zoom * factor));
    view.x = u - (u - view.x) * zoom / view.zoom;
    view.y = v - (v - view.y) * zoom / view.zoom;
    view.zoom = zoom;
    draw();
  }

  function place(event, port) {
    const box = port.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function mark(row, col) {
    const known = row >= 0 && row < rows && col >= 0 && col < cols;
    for (const rect of viewer.querySelectorAll(".mark")) {
      rect.setAttribute("x", col);
      rect.setAttribute("y", row);
      rect.style.visibility = known ? "visible" : "hidden";
    }
    const cell = known && heat?.querySelector(`[data-row="${row}"][data-col="${col}"]`);
    const value = cell ? `, similarity ${cell.dataset.value}` : "";
    viewer.querySelector("output").textContent =
      known ? `row ${row + 1}, column ${col + 1}${value}` : "";
  }

  function toggle(name, button) {
    const on = viewer.classList.toggle(name);
    button.setAttribute("aria-pressed", on);
    draw();
  }

  const actions = {
    in: () => zoomAt(1.5),
    out: () => zoomAt(1 / 1.5),
    reset: () => zoomAt(1e-9),
    lattice: (button) => toggle("show-lattice", button),
    tint: (button) => toggle("show-tint", button),
    swipe: (button) => toggle("swiping", button),
  };
  const keys = {
    "+": "in", "=": "in", "-": "out", 0: "reset", l: "lattice", m: "tint", s: "swipe",
  };
  const buttons = viewer.querySelectorAll("[data-do]");
  const act = (name) => {
    for (const button of buttons) if (button.dataset.do === name) actions[name](button);
  };
  for (const button of buttons) button.onclick = () => act(button.dataset.do);
  viewer.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    act(keys[event.key]);
  };

  for (const port of ports) {
    port.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event, port));
    }, { passive: false });
    port.ondblclick = () => act("reset");
    port.onpointerdown = (event) => {
      port.setPointerCapture(event.pointerId);
      last = place(event, port);
    };
    port.onpointermove = (event) => {
      const [u, v] = place(event, port);
      if (event.buttons & 1) {
        view.x += u - last[0];
        view.y += v - last[1];
        last = [u, v];
        draw();
      } else {
        panes.style.setProperty("--split", `${Math.min(100, Math.max(0, 100 * u))}%`);
      }
      const [x, y] = [(u - view.x) / view.zoom, (v - view.y) / view.zoom];
      mark(Math.floor(y * rows), Math.floor(x * cols));
    };
    port.onpointerleave = () => mark(-1, -1);
    if (heat) port.querySelector(".over").prepend(heat.firstElementChild.cloneNode(true));
  }
  if (heat) {
    heat.onpointermove = ({ target }) => {
      if (target.dataset.row) mark(+target.dataset.row, +target.dataset.col);
    };
    heat.onpointerleave = () => mark(-1, -1);
  }
  addEventListener("resize", draw);
  draw();
}
