# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
What of the web page runs in the browser: HTML, CSS and JavaScript of the picture with its legend.

It is given everything at once, as [`~tools.page.answers.pack_maps`] packs it: class ids, scores, and one map per
class. So hover labels, opacity, heat maps and downloads need no further call, and the server keeps nothing of a
photograph. They stand in this file because only Python files are installed.

`VIEWER_SCRIPT` runs where three names are known: `element`, around the HTML; `props`, with what is shown (`value`) and
what is said while there is nothing (`hint`); and `watch("value", show)`, by which `show` is called when the value
changes. Gradio has them, and the page without a server (model_cards/static_space) has its own, in whose values arrays
and an ImageBitmap stand in the place of texts.
"""

import json

from ..pictures.drawing import HEAT_COLORS, OPACITY


VIEWER_HTML = """
<div class="viewer" data-state="empty">
  <p class="hint"></p>
  <div class="stage">
    <div class="bar">
      <div class="views" role="group" aria-label="View">
        <button type="button" data-view="classes" aria-pressed="true">Classes</button>
        <button type="button" data-view="heat" aria-pressed="false">Heat map</button>
      </div>
      <select class="heat-class" aria-label="Heat map of"></select>
      <label class="opacity">Opacity
        <input type="range" min="0" max="100" step="1"><output></output>
      </label>
    </div>
    <div class="picture"><canvas role="img" tabindex="0"></canvas>
      <div class="tip" role="status" hidden></div></div>
    <div class="scale" hidden><span class="low"></span><span class="ramp"></span><span class="high"></span>
      <p class="meaning"></p></div>
  </div>
  <aside class="side">
    <header><h3></h3>
      <span class="choose"><button type="button" data-show="all">All</button>
        <button type="button" data-show="none">None</button></span></header>
    <input type="search" class="filter" placeholder="Type to find a class" aria-label="Find a class">
    <ul class="legend"></ul>
    <p class="note"></p>
    <div class="downloads">
      <button type="button" data-download="mask">Id mask <small>PNG</small></button>
      <button type="button" data-download="overlay">Picture as shown <small>PNG</small></button>
      <button type="button" data-download="details">Areas, scores <small>JSON</small></button>
    </div>
  </aside>
</div>
"""

# Above the viewer, on all of a page.
MASTHEAD_CSS = """
.masthead h1 { margin: 6px 0 2px; font-size: 26px; font-weight: 650; letter-spacing: -0.01em; }
.masthead p { margin: 0; color: var(--body-text-color-subdued); }
"""

# Gradio nests it in one rule, so it touches nothing else of the page. The variables are of Gradio's themes.
VIEWER_CSS = """
.viewer { display: grid; grid-template-columns: minmax(0, 1fr) 290px; gap: 22px; align-items: start;
  color: var(--body-text-color); font-size: 14px; line-height: 1.4; }
.viewer:not([data-state="shown"]) { display: block; }
.viewer:not([data-state="shown"]) :is(.stage, .side), .viewer[data-state="shown"] .hint { display: none; }
.hint { margin: 0; padding: 72px 24px; text-align: center; color: var(--body-text-color-subdued); font-size: 15px;
  white-space: pre-line; text-wrap: balance;
  border: 1px solid var(--border-color-primary); border-radius: 12px; background: var(--block-background-fill); }
.viewer[data-state="error"] .hint { color: var(--error-text-color); border-color: var(--error-border-color);
  background: var(--error-background-fill); }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: 10px 14px; margin-bottom: 12px; min-height: 36px; }
.views { display: inline-flex; padding: 3px; border-radius: 9px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.views button { padding: 5px 14px; border: 0; border-radius: 6px; background: none; cursor: pointer;
  color: var(--body-text-color-subdued); font-weight: 500; }
.views button[aria-pressed="true"] { background: var(--block-background-fill); color: var(--body-text-color);
  box-shadow: 0 1px 3px rgb(0 0 0 / 18%); }
.heat-class { max-width: 220px; padding: 6px 30px 6px 10px; border-radius: 8px; font-size: 14px;
  color: var(--body-text-color); background-color: var(--block-background-fill);
  border: 1px solid var(--border-color-primary); }
.opacity { display: inline-flex; align-items: center; gap: 10px; margin-left: auto;
  color: var(--body-text-color-subdued); }
.opacity input { width: 130px; accent-color: var(--color-accent); }
.opacity output { width: 40px; text-align: right; font-variant-numeric: tabular-nums; }
.picture { position: relative; display: flex; justify-content: center; }
canvas { display: block; width: min(100%, calc(64vh * var(--ratio))); height: auto; border-radius: 12px;
  touch-action: pan-y; cursor: crosshair; }
.tip { position: absolute; z-index: 2; display: flex; align-items: center; gap: 8px; padding: 5px 11px;
  border-radius: 8px; background: rgb(17 20 28 / 90%); color: #fff; font-size: 13px; white-space: nowrap;
  pointer-events: none; width: max-content; max-width: 90%; }
.tip[hidden], .scale[hidden], .filter[hidden], .heat-class[hidden] { display: none; }
.tip .name, .legend .name { overflow: hidden; text-overflow: ellipsis; }
.tip .score { color: #c4cad6; font-variant-numeric: tabular-nums; }
.swatch { flex: none; width: 14px; height: 14px; border-radius: 4px; }
.scale { display: grid; grid-template-columns: auto 1fr auto; align-items: center; gap: 4px 12px; margin-top: 12px;
  color: var(--body-text-color-subdued); font-size: 13px; font-variant-numeric: tabular-nums; }
.scale .ramp { height: 10px; border-radius: 5px; }
.scale .meaning { grid-column: 1 / -1; margin: 0; }
.side header { display: flex; justify-content: space-between; align-items: center; min-height: 36px;
  margin-bottom: 8px; }
.side h3 { margin: 0; font-size: 14px; font-weight: 600; color: var(--body-text-color); }
.choose button { padding: 2px 6px; border: 0; background: none; cursor: pointer; font-size: 13px;
  color: var(--link-text-color); }
.choose button:hover { text-decoration: underline; }
.filter { width: 100%; margin-bottom: 8px; padding: 6px 10px; border-radius: 8px; font-size: 14px;
  color: var(--body-text-color); background: var(--block-background-fill);
  border: 1px solid var(--border-color-primary); }
.legend { list-style: none; margin: 0; padding: 0; max-height: 46vh; overflow-y: auto; }
.legend li { margin: 0; padding: 0; }
.legend li.filtered { display: none; }
.legend label { position: relative; display: grid; grid-template-columns: auto auto minmax(0, 1fr) auto;
  align-items: center; gap: 9px; padding: 6px 8px 8px; border-radius: 8px; cursor: pointer; }
.legend label:hover { background: var(--background-fill-secondary); }
.legend input { appearance: auto; width: 15px; height: 15px; margin: 0; accent-color: var(--color-accent); }
.legend .name { white-space: nowrap; }
.legend .share { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.legend .length { position: absolute; left: 33px; right: 8px; bottom: 3px; height: 3px; border-radius: 2px;
  overflow: hidden; background: var(--border-color-primary); }
.legend .length i { display: block; height: 100%; border-radius: 2px; }
.legend li.hidden-class .name { color: var(--body-text-color-subdued); text-decoration: line-through; }
.viewer[data-shows="heat"] .choose, .viewer[data-shows="heat"] .legend input { visibility: hidden; }
.legend li.on-heat label { background: var(--background-fill-secondary);
  box-shadow: inset 0 0 0 1px var(--border-color-primary); }
.note { margin: 10px 0 0; white-space: pre-line; padding: 0; color: var(--body-text-color-subdued); font-size: 13px; }
.downloads { display: grid; gap: 8px; margin-top: 14px; }
.downloads button { display: flex; justify-content: space-between; padding: 8px 13px; border-radius: 9px;
  cursor: pointer; font-weight: 500; color: var(--body-text-color); background: var(--block-background-fill);
  border: 1px solid var(--border-color-primary); }
.downloads button:hover { border-color: var(--color-accent); }
.downloads small { color: var(--body-text-color-subdued); font-size: 12px; font-weight: 400; }
:is(button, select, input, canvas):focus-visible { outline: 2px solid var(--color-accent);
  outline-offset: 1px; }
@media (max-width: 860px) {
  .viewer { grid-template-columns: minmax(0, 1fr); gap: 16px; }
  .opacity { margin-left: 0; flex: 1; }
  .opacity input { flex: 1; min-width: 90px; }
  .legend { max-height: none; }
  .hint { padding: 44px 20px; }
}
"""

_SCRIPT = r"""
const find = (selector) => element.querySelector(selector);
const viewer = find(".viewer"), canvas = find("canvas"), tip = find(".tip"), slider = find(".opacity input");
const context = canvas.getContext("2d", { willReadFrequently: true });
// What is shown now; null before the first photograph. `turn` tells a late answer from the newest.
let now = null, turn = 0, view = "classes", focus = null, frame = 0;

const unpack = async (packed, type) => {
  if (typeof packed !== "string") return packed;  // it was computed in this browser
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new type(await new Response(stream).arrayBuffer());
};
const open = async (photo) => {
  if (typeof photo !== "string") return photo;
  const picture = new Image();
  picture.src = photo;
  await picture.decode();
  return picture;
};
const rgb = (color) => `rgb(${color.join(" ")})`;
const write = (byte) => {  // a stored byte -> the score it stands for, as people read it
  const [low, high] = now.limits, value = low + (high - low) * byte / 255;
  return now.percent ? `${(100 * value).toFixed(0)} %` : value.toFixed(3);
};

// The colours of a heat map for all 256 bytes.
const ramp = Array.from({ length: 256 }, (_, byte) => {
  const place = byte / 255 * (HEAT_COLORS.length - 1), first = Math.min(Math.floor(place), HEAT_COLORS.length - 2);
  return HEAT_COLORS[first].map((channel, index) =>
    channel + (place - first) * (HEAT_COLORS[first + 1][index] - channel));
});
find(".ramp").style.background = `linear-gradient(to right, ${HEAT_COLORS.map(rgb).join(",")})`;

// One class's map, spread over the picture bilinearly: bytes of width x height.
const spread = (index) => {
  const { width, height, map_width: columns, map_height: rows } = now, result = new Uint8Array(width * height);
  const map = now.maps.subarray(index * rows * columns, (index + 1) * rows * columns);
  const place = (length, cells) => Array.from({ length }, (_, pixel) => {
    const at = Math.min(Math.max((pixel + 0.5) * cells / length - 0.5, 0), cells - 1), lower = Math.floor(at);
    return [lower, Math.min(lower + 1, cells - 1), at - lower];
  });
  const across = place(width, columns);
  place(height, rows).forEach(([top, bottom, down], y) => across.forEach(([left, right, along], x) => {
    const above = map[top * columns + left] * (1 - along) + map[top * columns + right] * along;
    const below = map[bottom * columns + left] * (1 - along) + map[bottom * columns + right] * along;
    result[y * width + x] = above + (below - above) * down + 0.5;
  }));
  return result;
};

const draw = () => {
  frame = 0;
  const { width, height, photo, ids, image } = now, pixels = image.data, opacity = slider.value / 100;
  const heat = view === "heat" ? now.heat : null;
  for (let y = 0, pixel = 0; y < height; y++) {
    for (let x = 0; x < width; x++, pixel++) {
      const at = 4 * pixel, id = ids[pixel];
      let color, alpha = opacity, shade = 1;
      if (heat) {
        color = ramp[heat[pixel]];
      } else {
        const shown = now.shown[id], right = x + 1 < width ? ids[pixel + 1] : id;
        const below = y + 1 < height ? ids[pixel + width] : id;
        color = now.colors[id];
        alpha = shown ? (focus === null || focus === id ? opacity : 0.2 * opacity) : 0;
        if ((right !== id && (shown || now.shown[right])) || (below !== id && (shown || now.shown[below]))) {
          shade = 1 - 0.65 * opacity;
        }
      }
      // Greyed a little, so that a colour is a class and not the photograph's own.
      const grey = (photo[at] + photo[at + 1] + photo[at + 2]) / 3;
      const mix = heat ? Math.min(2 * opacity, 1) : 0.6 * alpha;
      for (let channel = 0; channel < 3; channel++) {
        const under = photo[at + channel] + mix * (grey - photo[at + channel]);
        pixels[at + channel] = shade * (under + alpha * (color[channel] - under));
      }
    }
  }
  context.putImageData(image, 0, 0);
};
const redraw = () => {
  find(".opacity output").textContent = `${slider.value} %`;
  if (now && !frame) frame = requestAnimationFrame(draw);
};

const chooseView = (name) => {
  view = name;
  element.querySelectorAll("[data-view]").forEach((button) =>
    button.setAttribute("aria-pressed", button.dataset.view === view));
  viewer.dataset.shows = view;
  find(".heat-class").hidden = find(".scale").hidden = view !== "heat";
  if (view === "heat") chooseHeat(find(".heat-class").value);
  else find(".on-heat")?.classList.remove("on-heat");
  redraw();
};
const chooseHeat = (id) => {
  find(".heat-class").value = id;
  now.heat = spread(Number(id));
  element.querySelectorAll(".legend li").forEach((row) => row.classList.toggle("on-heat", row.dataset.id === id));
  redraw();
};

const make = (name, className, text = "") => {  // names of classes are text, never HTML
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
};
const swatch = (color) => {
  const node = make("span", "swatch");
  node.style.background = rgb(color);
  return node;
};
const legendRow = ({ id, name, color, area, remark }) => {
  const row = make("li", ""), label = make("label", ""), box = make("input", "");
  const share = 100 * area, bar = make("span", "length"), length = make("i", "");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => {
    now.shown[id] = box.checked;
    row.classList.toggle("hidden-class", !box.checked);
    redraw();
  });
  length.style.cssText = `width: ${share}%; background: ${rgb(color)}`;
  bar.append(length);
  label.append(box, swatch(color), make("span", "name", name),
    make("span", "share", share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`), bar);
  label.title = `${name}: ${share.toFixed(2)} % of the picture, ${remark}`;
  row.dataset.name = name.toLowerCase();
  row.dataset.id = id;
  row.addEventListener("click", (event) => {
    if (view !== "heat") return;
    event.preventDefault();  // what is shown as a class stays as it is
    chooseHeat(row.dataset.id);
  });
  row.addEventListener("pointerenter", () => { focus = id; redraw(); });
  row.addEventListener("pointerleave", () => { focus = null; redraw(); });
  row.append(label);
  return row;
};

const show = async () => {
  const value = props.value, own = ++turn;
  if (!value || value.error) {
    now = null;
    find(".hint").textContent = value?.error ?? props.hint;
    find(".hint").role = value ? "alert" : "note";
    viewer.dataset.state = value ? "error" : "empty";
    return;
  }
  const [ids, scores, maps, photograph] = await Promise.all([unpack(value.ids, Uint16Array),
    unpack(value.scores, Uint8Array), unpack(value.maps, Uint8Array), open(value.photo)]);
  if (own !== turn) return;
  const { width, height } = value;
  canvas.width = width;
  canvas.height = height;
  canvas.style.setProperty("--ratio", width / height);
  context.drawImage(photograph, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  now = { ...value, ids, scores, maps, image, photo: image.data.slice(), shown: [], colors: [], names: [] };
  for (const { id, name, color } of value.classes) {
    now.names[id] = name;
    now.colors[id] = color;
    now.shown[id] = true;
  }
  const found = value.classes.filter(({ area }) => area > 0).sort((one, other) => other.area - one.area);
  canvas.setAttribute("aria-label", `Found: ${found.map(({ name }) => name).join(", ")}`);
  find(".side h3").textContent = value.title;
  find("[data-view=classes]").textContent = value.view;
  find(".legend").replaceChildren(...found.map(legendRow));
  find(".filter").hidden = found.length <= 12;
  find(".filter").value = "";
  find(".note").textContent = value.note;
  const selected = find(".heat-class").selectedOptions[0]?.textContent;
  // Those that are found come first, and the one that was chosen stays.
  const others = value.classes.filter(({ area }) => area === 0);
  find(".heat-class").replaceChildren(...[...found, ...others].map(({ id, name }) => {
    const option = make("option", "", name);
    option.value = id;
    option.selected = name === selected;
    return option;
  }));
  [find(".low").textContent, find(".high").textContent] = [write(0), write(255)];
  find(".meaning").textContent = value.meaning;
  viewer.dataset.state = "shown";
  focus = null;
  chooseView(view);
};

const labelAt = ({ clientX, clientY }) => {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor((clientX - box.left) * now.width / box.width);
  const y = Math.floor((clientY - box.top) * now.height / box.height);
  if (x < 0 || y < 0 || x >= now.width || y >= now.height) return;
  const pixel = y * now.width + x, heat = view === "heat";
  const id = heat ? Number(find(".heat-class").value) : now.ids[pixel];
  tip.replaceChildren(swatch(heat ? ramp[now.heat[pixel]] : now.colors[id]), make("span", "name", now.names[id]),
    make("span", "score", write(heat ? now.heat[pixel] : now.scores[pixel])));
  tip.hidden = false;
  // Beside the pointer, and on its other side where there is no room.
  const around = tip.parentElement.getBoundingClientRect(), left = clientX - around.left;
  const top = clientY - around.top;
  tip.style.left = `${Math.max(4, left + 16 + tip.offsetWidth > around.width ? left - 14 - tip.offsetWidth
    : left + 16)}px`;
  tip.style.top = `${Math.max(4, top + 18 + tip.offsetHeight > around.height ? top - 12 - tip.offsetHeight
    : top + 18)}px`;
};

// The arrows move a point over the picture, as a mouse would, with Shift in small steps.
const point = { x: 0.5, y: 0.5 };
const labelAtPoint = () => {
  const box = canvas.getBoundingClientRect();
  labelAt({ clientX: box.left + point.x * box.width, clientY: box.top + point.y * box.height });
};
const movePoint = (event) => {
  const step = event.shiftKey ? 0.005 : 0.04, directions = { ArrowLeft: ["x", -step], ArrowRight: ["x", step],
    ArrowUp: ["y", -step], ArrowDown: ["y", step] };
  if (!(event.key in directions)) return;
  event.preventDefault();  // the page stays where it is
  const [axis, distance] = directions[event.key];
  point[axis] = Math.min(Math.max(point[axis] + distance, 0), 0.999);
  labelAtPoint();
};

const save = (address, name) => {
  const link = make("a", "");
  link.href = address;
  link.download = name;
  link.click();
};
const saveBlob = (blob, name) => {
  const address = URL.createObjectURL(blob);
  save(address, name);
  setTimeout(() => URL.revokeObjectURL(address), 60000);
};
const downloads = {
  mask: () => save(now.mask, "segmentation.png"),
  overlay: () => canvas.toBlob((blob) => saveBlob(blob, "overlay.png")),
  details: () => saveBlob(new Blob([JSON.stringify(now.details, null, 2)], { type: "application/json" }),
    "segmentation.json"),
};

slider.value = Math.round(100 * OPACITY);
slider.addEventListener("input", redraw);
canvas.addEventListener("pointermove", labelAt);
canvas.addEventListener("pointerdown", labelAt);
canvas.addEventListener("keydown", movePoint);
canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) labelAtPoint(); });
for (const name of ["pointerleave", "blur"]) canvas.addEventListener(name, () => { tip.hidden = true; });
find(".heat-class").addEventListener("change", (event) => chooseHeat(event.target.value));
find(".filter").addEventListener("input", (event) => {
  const words = event.target.value.trim().toLowerCase();
  element.querySelectorAll(".legend li").forEach((row) =>
    row.classList.toggle("filtered", !row.dataset.name.includes(words)));
});
element.addEventListener("click", ({ target }) => {
  const { view: name, show: which, download } = target.closest("button")?.dataset ?? {};
  if (name) chooseView(name);
  if (download) downloads[download]();
  if (which) {
    element.querySelectorAll(".legend li:not(.filtered) input").forEach((box) => {
      if (box.checked !== (which === "all")) box.click();
    });
  }
});
watch("value", show);
redraw();
show();
"""
VIEWER_SCRIPT = f"const HEAT_COLORS = {json.dumps(HEAT_COLORS)}, OPACITY = {OPACITY};\n{_SCRIPT}"
