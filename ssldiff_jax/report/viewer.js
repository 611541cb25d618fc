"use strict";

const MAX_PX = 32; // screen pixels that one image pixel may fill
const CRISP = 2; // above this many, pixels are shown as squares
const CLOSE = 5; // lines nearer than this many screen pixels are left out
const STEP = 0.2; // of the view, that an arrow key moves
const COLOURS = { cells: "#ffffff", windows: "#4fd8ff", mark: "#ffe14d" };

if (typeof OpenSeadragon !== "undefined") {
  document.documentElement.classList.add("live");
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      link(target, JSON.parse(target.dataset.view));
    }
  }, { rootMargin: "600px" });
  for (const viewer of document.querySelectorAll(".viewer")) near.observe(viewer);
}

// Nothing is requested that is not an image: tiles are described here, not fetched.
function tileSource({ url, tiles, width, height, tile, overlap }) {
  if (!tiles) return { type: "image", url, crossOriginPolicy: false };
  return new OpenSeadragon.DziTileSource({
    width, height, tilesUrl: tiles, tileSize: tile, tileOverlap: overlap, fileFormat: "jpg",
  });
}

function open(element, source) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return OpenSeadragon({
    element,
    tileSources: tileSource(source),
    drawer: "canvas", // WebGL refuses images of a page that was opened as a file
    crossOriginPolicy: false,
    showNavigationControl: false,
    keyboardNavEnabled: false,
    tabIndex: "",
    cooperativeGestures: true,
    maxZoomPixelRatio: MAX_PX,
    minZoomImageRatio: 1,
    visibilityRatio: 1,
    constrainDuringPan: true,
    animationTime: still ? 0 : 0.4,
    gestureSettingsMouse: { clickToZoom: false },
    gestureSettingsTouch: { dblClickToZoom: false },
    gestureSettingsPen: { clickToZoom: false },
  });
}

function link(root, view) {
  const panesBox = root.querySelector(".panes");
  const ports = [...root.querySelectorAll(".port")];
  const output = root.querySelector("output");
  const range = root.querySelector("input[type=range]");
  const heat = root.querySelector("svg.heat");
  const bars = ports.map((p) => p.querySelector(".scale"));
  const shown = { cells: false, windows: false, map: false };
  const width = view.sources[0].width;
  const panes = ports.map((p, i) => open(p.querySelector(".stage"), view.sources[i]));
  const map = new Image();
  let marked = null;
  let following = false;
  root.panes = panes;

  const lines = {
    cells: { rows: multiples(view.rows), cols: multiples(view.cols) },
    windows: view.windows,
  };

  function multiples(count) {
    return Array.from({ length: count - 1 }, (_, i) => (i + 1) * view.cell);
  }

  function paintAll() {
    panes.forEach((pane, i) => paint(pane, i));
  }

  function paint(pane, i) {
    if (!pane.isOpen()) return;
    const canvas = ports[i].querySelector(".over");
    const { x: w, y: h } = pane.viewport.getContainerSize();
    const dense = window.devicePixelRatio;
    if (canvas.width !== Math.round(w * dense)) canvas.width = Math.round(w * dense);
    if (canvas.height !== Math.round(h * dense)) canvas.height = Math.round(h * dense);
    const at = (x) => pane.viewport.pixelFromPointNoRotate(new OpenSeadragon.Point(x, 0), true);
    const origin = at(0), unit = (at(1).x - origin.x) / width; // screen px per image px
    const pen = canvas.getContext("2d");
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, w, h);
    if (bars[i]) showScale(bars[i], view.mpp / unit, view.scene);
    const cell = view.cell * unit;
    if (shown.map && map.complete) {
      pen.globalAlpha = 0.55;
      pen.imageSmoothingEnabled = false;
      pen.drawImage(map, origin.x, origin.y, view.cols * cell, view.rows * cell);
      pen.globalAlpha = 1;
    }
    for (const name of ["cells", "windows"]) {
      if (!shown[name]) continue;
      const { rows, cols } = lines[name];
      strokeLines(pen, COLOURS[name], visible(cols, origin.x, unit, w), h, false);
      strokeLines(pen, COLOURS[name], visible(rows, origin.y, unit, h), w, true);
    }
    if (marked) {
      pen.strokeStyle = COLOURS.mark;
      pen.lineWidth = 3;
      pen.strokeRect(origin.x + marked.col * cell, origin.y + marked.row * cell, cell, cell);
    }
  }

  function visible(list, from, unit, size) {
    const found = list.map((px) => from + px * unit).filter((px) => px > 0 && px < size);
    return found.length * CLOSE > size ? [] : found;
  }

  function strokeLines(pen, colour, list, length, across) {
    for (const [style, thick] of [["#0009", 3], [colour, 1]]) {
      pen.strokeStyle = style;
      pen.lineWidth = thick;
      pen.beginPath();
      for (const px of list) {
        pen.moveTo(across ? 0 : px, across ? px : 0);
        pen.lineTo(across ? length : px, across ? px : length);
      }
      pen.stroke();
    }
  }

  // `where` are the coordinates of a point in the cell.
  function mark(row, col, where) {
    const known = row >= 0 && row < view.rows && col >= 0 && col < view.cols;
    marked = known ? { row, col } : null;
    if (heat) {
      const rect = heat.querySelector(".mark");
      rect.setAttribute("x", col);
      rect.setAttribute("y", row);
      rect.style.visibility = known ? "visible" : "hidden";
    }
    const value = known && view.similarity ? `, similarity ${view.similarity[row][col]}` : "";
    const cell = `cell in row ${row + 1}, column ${col + 1}${value}`;
    output.textContent = known ? [where, cell].filter(Boolean).join("; ") : "";
    paintAll();
  }

  function markPoint(point) {
    const [x, y] = [point.x * width, point.y * width];
    mark(Math.floor(y / view.cell), Math.floor(x / view.cell), coordinates(x, y, view.origin));
  }

  function markAt(pane, pixel) {
    if (pane.isOpen()) markPoint(pane.viewport.pointFromPixel(pixel, true));
  }

  function markCentre() {
    markPoint(panes[0].viewport.getCenter(false));
  }

  // Where one view is sent, the other is sent at the same time.
  function follow(pane, other) {
    const send = (act) => {
      if (following || !other.isOpen()) return;
      following = true;
      act(other.viewport);
      following = false;
    };
    pane.addHandler("zoom", ({ zoom, refPoint, immediately }) => {
      send((viewport) => viewport.zoomTo(zoom, refPoint, immediately));
      const crisp = pane.viewport.viewportToImageZoom(zoom) > CRISP;
      for (const each of panes) each.drawer.setImageSmoothingEnabled(!crisp);
    });
    pane.addHandler("pan", ({ center, immediately }) => {
      send((viewport) => viewport.panTo(center, immediately));
    });
  }

  panes.forEach((pane, i) => {
    follow(pane, panes[1 - i]);
    pane.addHandler("open", () => ports[i].classList.add("opened"));
    pane.addHandler("update-viewport", () => paint(pane, i));
    pane.addHandler("canvas-press", () => root.focus({ preventScroll: true }));
    pane.addHandler("canvas-double-click", () => actions.reset());
    pane.addHandler("canvas-exit", () => mark(-1, -1));
    ports[i].addEventListener("pointermove", (event) => {
      const box = ports[i].getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      if (!event.buttons) split(100 * x / box.width);
      markAt(pane, new OpenSeadragon.Point(x, y));
    });
  });

  function split(percent) {
    range.value = Math.min(100, Math.max(0, percent));
    panesBox.style.setProperty("--split", `${range.value}%`);
  }
  range.oninput = () => split(+range.value);

  function press(name, on) {
    root.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", on);
  }

  function overlay(name) {
    shown[name] = !shown[name];
    if (name === "map" && !map.src) {
      map.onload = paintAll;
      map.src = view.map;
    }
    press(name, shown[name]);
    paintAll();
  }

  function zoom(factor) {
    panes[0].viewport.zoomBy(factor);
    panes[0].viewport.applyConstraints();
    markCentre();
  }

  function move(x, y) {
    const { width: w, height: h } = panes[0].viewport.getBounds(false);
    panes[0].viewport.panBy(new OpenSeadragon.Point(x * w * STEP, y * h * STEP));
    panes[0].viewport.applyConstraints();
    markCentre();
  }

  const actions = {
    in: () => zoom(1.5),
    out: () => zoom(1 / 1.5),
    reset: () => panes[0].viewport.goHome(),
    left: () => move(-1, 0),
    right: () => move(1, 0),
    up: () => move(0, -1),
    down: () => move(0, 1),
    cells: () => overlay("cells"),
    windows: () => overlay("windows"),
    map: () => overlay("map"),
    swipe: () => press("swipe", root.classList.toggle("swiping")),
    full: () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()),
  };
  root.addEventListener("fullscreenchange", () => {
    const on = document.fullscreenElement === root;
    press("full", on);
    for (const pane of panes) pane.setCooperativeGestures(!on);
  });

  const keys = {
    "+": "in", "=": "in", "-": "out", 0: "reset", l: "cells", w: "windows", m: "map", s: "swipe",
    f: "full", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
  };
  for (const button of root.querySelectorAll("[data-do]")) {
    button.onclick = () => actions[button.dataset.do]();
  }
  root.onkeydown = (event) => {
    const name = keys[event.key];
    if (!name || event.ctrlKey || event.metaKey || event.altKey || event.target === range) return;
    if (name in shown && name !== "cells" && !view[name]) return;
    event.preventDefault();
    actions[name]();
  };

  if (heat) {
    heat.onpointermove = ({ target }) => {
      if (target.dataset.row) mark(+target.dataset.row, +target.dataset.col);
    };
    heat.onpointerleave = () => mark(-1, -1);
  }
}
