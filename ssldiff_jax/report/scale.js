"use strict";

const BAR = 140; // screen pixels that a scale bar fills at the most
const OBJECTIVE = 10; // µm per pixel of a scan at 1×, so that 0.5 µm are 20×
const SLIDE_UNITS = [[1e6, "m"], [1e3, "mm"], [1, "µm"], [1e-3, "nm"]];
const SCENE_UNITS = [[1e9, "km"], [1e6, "m"], [1e4, "cm"]];

const digits = (value, count = 3) => Number(value.toPrecision(count)).toLocaleString("en-US");

// The largest of 1, 2 and 5 times a power of ten that is not above `most`.
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return power * [5, 2, 1].find((times) => times * power <= most * (1 + 1e-9));
}

// A length in µm; of a scene in metres and their multiples.
function lengthText(um, scene) {
  const units = scene ? SCENE_UNITS : SLIDE_UNITS;
  const [factor, unit] = units.find(([f]) => um >= f * (1 - 1e-9)) ?? units.at(-1);
  return `${digits(um / factor)} ${unit}`;
}

// A bar, its length, and how large the screen shows what it measures: of a slide as a microscope
// would be called that showed it so, of a scene as the length of a screen pixel.
function showScale(box, umPerPixel, scene) {
  const um = roundLength(BAR * umPerPixel);
  const onScreen = scene
    ? `${lengthText(umPerPixel, true)} per screen pixel`
    : `${digits(OBJECTIVE / umPerPixel, 2)}× on screen`;
  box.hidden = false;
  box.dataset.um = um;
  box.querySelector("i").style.width = `${um / umPerPixel}px`;
  box.querySelector("span").textContent = `${lengthText(um, scene)} · ${onScreen}`;
}

// The pixel under a point, of the image and, where its place is known, of its slide at full
// resolution.
function coordinates(x, y, origin) {
  const at = (a, b) => `x ${Math.floor(a).toLocaleString("en-US")}, y ${Math.floor(b).toLocaleString("en-US")} px`;
  const inImage = `image ${at(x, y)}`;
  if (!origin) return inImage;
  const { top, left, native_px: native } = origin;
  return `${inImage}; slide at full resolution ${at((left + x) * native, (top + y) * native)}`;
}
