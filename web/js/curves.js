/**
 * Motion as curves in the node that made it: the mouth, the head, the blinks, with a playhead that follows the
 * node's video. Clips come in the node's ui output, see nodes/curves.py.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { passGesturesOn } from "./canvas_gestures.js";
import { Views, allNodes, liveNode, nodeByExecution, outputKey } from "./live_node.js";
import { translated } from "./translated.js";

const OUTPUT = "fd2talk_curves";
/** Node property with the names of the curves that are shown; saved with the workflow. */
const CHOSEN = "fd2talk curves";
const FIRST_CHOSEN = ["mouth opening", "pitch", "yaw", "roll", "blinks"];
const COLORS = ["#ffb454", "#59c2ff", "#aad94c", "#f07178", "#d2a6ff", "#95e6cb", "#e6b673", "#f29668"];

/** Unit -> the axes to choose from: the smallest one that holds the curve, so that a larger motion looks larger. */
const AXES = {
  "°": [10, 20, 45, 90, 180].map((limit) => [-limit, limit]),
  cm: [2, 5, 10, 50].map((limit) => [-limit, limit]),
  mm: [20, 40, 80].map((limit) => [0, limit]),
  "": [[0, 1], [-1, 1], [-3, 3]],
};

const LANE_HEIGHT = 62;
const MARGIN = { left: 8, right: 8, bottom: 16 };
const STYLE = `
.fd2talk-curves { display: flex; flex-direction: column; gap: 4px; height: 100%; overflow: hidden;
  font: 11px Inter, Arial, sans-serif; color: var(--input-text, #ddd); }
.fd2talk-curves canvas { flex: 1; min-height: 0; width: 100%; border-radius: 6px; cursor: crosshair;
  background: var(--comfy-input-bg, #222); }
.fd2talk-curves .names { display: flex; flex-wrap: wrap; gap: 4px; }
.fd2talk-curves button, .fd2talk-curves select { font: inherit; color: inherit; cursor: pointer;
  background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 9px; padding: 1px 7px; }
.fd2talk-curves button[aria-pressed="false"] { opacity: 0.45; }
.fd2talk-curves button i { display: inline-block; width: 8px; height: 8px; border-radius: 4px; margin-right: 4px; }
.fd2talk-curves button span { font-variant-numeric: tabular-nums; margin-left: 4px; }
.fd2talk-curves select { max-width: 76px; }`;

/** Value of a curve at a time, straight between its points. */
function valueAt(times, values, time) {
  let high = times.findIndex((instant) => instant >= time);
  if (high < 0) high = times.length - 1;
  const low = Math.max(high - 1, 0);
  const gap = times[high] - times[low];
  const share = gap > 0 ? Math.min(Math.max((time - times[low]) / gap, 0), 1) : 0;
  return values[low] + (values[high] - values[low]) * share;
}

const VIEWS = new Views("fd2talk-motion");
/** Node -> the view that was made for it. */
const MADE = new WeakMap();

/** The node's own view, which may not be on the page yet, and those that the page shows for it. */
function viewsOf(node) {
  return new Set([...VIEWS.of(node), ...(MADE.has(node) ? [MADE.get(node)] : [])]);
}

/** What a node shows of its motion; made when there is something to show for the first time. */
class CurveView {
  constructor(node) {
    this.born = node;
    this.clips = [];
    this.time = null;
    this.element = Object.assign(document.createElement("div"), { className: "fd2talk-curves" });
    this.canvas = document.createElement("canvas");
    this.names = Object.assign(document.createElement("div"), { className: "names" });
    this.element.append(this.canvas, this.names);
    passGesturesOn(this.element);
    VIEWS.add(this);
    for (const event of ["pointerdown", "pointermove"]) {
      this.canvas.addEventListener(event, (pointer) => this.point(pointer));
    }
    this.canvas.addEventListener("pointerleave", () => !this.video() && this.moveTo(null));
    this.widget = node.addDOMWidget(OUTPUT, "FD2TALK_CURVES", this.element, {
      serialize: false,
      getMinHeight: () => this.height(),
      getMaxHeight: () => this.height(),
    });
    this.widget.serialize = false;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.follow = this.follow.bind(this);
    requestAnimationFrame(this.follow);
  }

  get node() {
    return liveNode(this.born);
  }

  /** New clips, and the file name of the video that they belong to, if there is one. */
  show(clips, videoName) {
    this.clips = clips;
    this.videoName = videoName;
    this.time = null;
    this.refresh();
  }

  refresh() {
    this.listNames();
    this.fit();
    this.draw();
  }

  /** Under the video, which the classic canvas adds to the node as a widget when it likes. */
  keepLast() {
    const { widgets } = this.node;
    if (LiteGraph.vueNodesMode || !widgets?.length) return;
    const place = widgets.findIndex((widget) => widget.name === OUTPUT);
    if (place < 0 || place === widgets.length - 1) return;
    widgets.push(...widgets.splice(place, 1));
    this.fit();
  }

  fit() {
    const { node } = this;
    const needed = node.computeSize();
    node.setSize([Math.max(node.size[0], needed[0], 260), Math.max(node.size[1], needed[1])]);
    node.setDirtyCanvas(true, true);
  }

  height() {
    return LANE_HEIGHT * Math.max(this.lanes().length, 1) + MARGIN.bottom + 52;
  }

  curves() {
    return this.clips.flatMap((clip) => clip.curves.map((curve) => ({ ...curve, times: clip.times })));
  }

  duration() {
    return Math.max(...this.clips.map((clip) => clip.duration), 0.001);
  }

  chosen() {
    return this.node.properties[CHOSEN] ?? FIRST_CHOSEN;
  }

  /** Chosen curves, one lane a unit; an unknown unit never comes. */
  lanes() {
    const chosen = this.chosen();
    const lanes = new Map();
    for (const curve of this.curves().filter(({ name }) => chosen.includes(name))) {
      lanes.set(curve.unit, [...(lanes.get(curve.unit) ?? []), curve]);
    }
    return [...lanes].map(([unit, curves]) => {
      const values = curves.flatMap((curve) => curve.values);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const axes = AXES[unit];
      return { unit, curves, axis: axes.find(([from, to]) => from <= low && high <= to) ?? axes.at(-1) };
    });
  }

  /** Names that can be pressed, and the rest in a list to add one from. */
  listNames() {
    const chosen = this.chosen();
    const all = [...new Set(this.curves().map((curve) => curve.name))];
    const pressed = all.filter((name) => FIRST_CHOSEN.includes(name) || chosen.includes(name));
    const buttons = pressed.map((name) => this.button(name, chosen.includes(name)));
    const rest = all.filter((name) => !pressed.includes(name));
    this.names.replaceChildren(...buttons);
    if (!rest.length) return;
    const list = document.createElement("select");
    list.append(new Option(translated({ en: "more…", zh: "更多…" }), ""), ...rest.map((name) => new Option(name, name)));
    list.onchange = () => list.value && this.toggle(list.value);
    this.names.append(list);
  }

  button(name, on) {
    const button = document.createElement("button");
    const dot = document.createElement("i");
    dot.style.background = this.color(name);
    button.append(dot, name, document.createElement("span"));
    button.dataset.curve = name;
    button.setAttribute("aria-pressed", String(on));
    button.onclick = () => this.toggle(name);
    return button;
  }

  toggle(name) {
    const chosen = this.chosen();
    const without = chosen.filter((other) => other !== name);
    this.node.properties[CHOSEN] = without.length < chosen.length ? without : [...chosen, name];
    for (const view of viewsOf(this.node)) view.refresh();
  }

  color(name) {
    const first = FIRST_CHOSEN.indexOf(name);
    if (first >= 0) return COLORS[first];
    const sum = [...name].reduce((total, letter) => total + letter.charCodeAt(0), 0);
    return COLORS[FIRST_CHOSEN.length + (sum % (COLORS.length - FIRST_CHOSEN.length))];
  }

  // Time

  video() {
    if (!this.videoName) return null;
    return [...document.querySelectorAll("video")].find(
      (video) => new URLSearchParams(video.currentSrc.split("?")[1]).get("filename") === this.videoName,
    );
  }

  follow() {
    if (!this.element.isConnected && this.node !== this.born) return; // another node has taken its place
    if (!this.element.isConnected && !this.born.graph) return; // the node is gone
    this.keepLast();
    const video = this.element.isConnected && this.video();
    if (video && video.currentTime !== this.time) this.moveTo(video.currentTime);
    requestAnimationFrame(this.follow);
  }

  moveTo(time) {
    this.time = time;
    for (const curve of this.curves()) {
      const place = this.names.querySelector(`[data-curve="${CSS.escape(curve.name)}"] span`);
      if (!place) continue;
      const value = time === null ? null : valueAt(curve.times, curve.values, time);
      place.textContent = value === null ? "" : `${value.toFixed(curve.unit ? 1 : 2)}${curve.unit && ` ${curve.unit}`}`;
    }
    this.draw();
  }

  /** The pointer shows the values under it; pressed, it takes the video there. */
  point(pointer) {
    const video = this.video();
    if (video && !(pointer.buttons & 1)) return;
    const width = this.canvas.clientWidth - MARGIN.left - MARGIN.right;
    const box = this.canvas.getBoundingClientRect(); // in pixels of the screen, the page being zoomed
    const x = ((pointer.clientX - box.left) / box.width) * this.canvas.clientWidth - MARGIN.left;
    const time = Math.min(Math.max(x / width, 0), 1) * this.duration();
    if (video) video.currentTime = time;
    this.moveTo(time);
  }

  // Drawing

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height || !this.clips.length) return;
    const sharp = 2 * (window.devicePixelRatio || 1); // still sharp when the graph is zoomed in
    this.canvas.width = width * sharp;
    this.canvas.height = height * sharp;
    const pen = this.canvas.getContext("2d");
    pen.scale(sharp, sharp);
    pen.font = "10px Inter, Arial, sans-serif";
    const lanes = this.lanes();
    const x = (time) => MARGIN.left + (time / this.duration()) * (width - MARGIN.left - MARGIN.right);
    this.drawSeconds(pen, x, height);
    const tall = (height - MARGIN.bottom) / Math.max(lanes.length, 1);
    lanes.forEach((lane, index) => this.drawLane(pen, lane, x, index * tall + 4, tall - 8, width));
    if (this.time !== null) {
      pen.fillStyle = "#fff";
      pen.fillRect(x(this.time) - 0.75, 0, 1.5, height - MARGIN.bottom + 2);
    }
  }

  drawSeconds(pen, x, height) {
    const duration = this.duration();
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600].find((gap) => duration / gap <= 8) ?? 1800;
    pen.textAlign = "center";
    for (let time = 0; time <= duration + 1e-6; time += step) {
      pen.fillStyle = "rgba(128, 128, 128, 0.25)";
      pen.fillRect(x(time), 0, 1, height - MARGIN.bottom);
      pen.fillStyle = "rgba(160, 160, 160, 0.9)";
      const label = `${+time.toFixed(1)} s`;
      pen.fillText(label, Math.min(Math.max(x(time), 12), x(duration) - 8), height - 4);
    }
  }

  drawLane(pen, { unit, curves, axis: [low, high] }, x, top, tall, width) {
    const y = (value) => top + tall * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low));
    pen.fillStyle = "rgba(128, 128, 128, 0.12)";
    pen.fillRect(MARGIN.left, top, width - MARGIN.left - MARGIN.right, tall);
    pen.fillStyle = "rgba(128, 128, 128, 0.5)";
    pen.fillRect(MARGIN.left, y(Math.max(low, 0)) - 0.5, width - MARGIN.left - MARGIN.right, 1);
    for (const curve of curves) {
      pen.strokeStyle = this.color(curve.name);
      pen.lineWidth = 1.5;
      pen.lineJoin = "round";
      pen.beginPath();
      curve.values.forEach((value, index) => pen.lineTo(x(curve.times[index]), y(value)));
      if (curve.values.length === 1) pen.lineTo(x(this.duration()), y(curve.values[0]));
      pen.stroke();
    }
    pen.fillStyle = "rgba(160, 160, 160, 0.9)";
    pen.textAlign = "left";
    const end = unit && ` ${unit}`;
    pen.fillText(low < 0 ? `±${high}${end}` : `${low} to ${high}${end}`, MARGIN.left + 4, top + 10);
  }
}

function show(node, output) {
  const clips = output?.[OUTPUT];
  if (!clips?.length) return;
  if (!MADE.has(node)) MADE.set(node, new CurveView(node));
  for (const view of viewsOf(node)) {
    if (view.clips !== clips) view.show(clips, output.images?.[0]?.filename);
  }
}

const hasCurves = (node) => /^(FD2Talk|Coeff3DMM)/.test(node.comfyClass ?? "");

/** Nodes that the page has made anew show what it has stored of them: after an undo, or back in a tab. */
function showStored() {
  for (const node of allNodes().filter(hasCurves)) show(node, app.nodeOutputs?.[outputKey(node)]);
}

// A reload empties the page's store, but the host still has what was put out, and the files.

const RAN = "fd2talk ran";
/** Graph id -> {execution id: prompt id} of the nodes that have run in this tab of the browser. */
const ran = JSON.parse(sessionStorage.getItem(RAN) ?? "{}");
/** Graphs that ran before this page was loaded and have not been opened in it since. */
const toRestore = new Map(Object.entries(ran));

const graphId = () => String((app.rootGraph ?? app.graph).id);

function remember({ detail }) {
  if (!detail.output?.[OUTPUT]) return;
  (ran[graphId()] ??= {})[detail.display_node ?? detail.node] = detail.prompt_id;
  sessionStorage.setItem(RAN, JSON.stringify(ran));
}

async function restore() {
  const graph = graphId();
  const prompts = toRestore.get(graph);
  if (!prompts) return;
  toRestore.delete(graph);
  for (const prompt of new Set(Object.values(prompts))) {
    const answer = await api.fetchApi(`/history/${prompt}`);
    const outputs = answer.ok ? ((await answer.json())[prompt]?.outputs ?? {}) : {};
    if (graphId() !== graph) return; // another tab has been opened meanwhile
    for (const [id, output] of Object.entries(outputs)) {
      const node = prompts[id] === prompt ? nodeByExecution(id) : null;
      if (node && hasCurves(node)) app.nodeOutputs[outputKey(node)] ??= output;
    }
  }
  showStored();
}

app.registerExtension({
  name: "FD2Talk.Curves",
  setup() {
    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }));
    api.addEventListener("executed", remember);
  },
  nodeCreated(node) {
    if (!hasCurves(node)) return;
    const before = node.onExecuted;
    node.onExecuted = function (output) {
      before?.apply(this, arguments);
      show(this, output);
    };
  },
  async afterConfigureGraph() {
    showStored();
    await restore();
  },
  onNodeOutputsUpdated: showStored,
});
