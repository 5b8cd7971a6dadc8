/** A canvas to draw head motion on, in the node Pose Curve; what is drawn stands as JSON in its widget keyframes. */

import { app } from "../../../scripts/app.js";
import { passGesturesOn } from "./canvas_gestures.js";
import { Views, liveNode } from "./live_node.js";
import { translated } from "./translated.js";

/** Name -> colour, the limits of what can be drawn, and to what a drawn value is rounded. */
const AXES = {
  pitch: { color: "#59c2ff", limits: [45, 90, 180], unit: "°", round: 0.5 },
  yaw: { color: "#aad94c", limits: [45, 90, 180], unit: "°", round: 0.5 },
  roll: { color: "#f07178", limits: [45, 90, 180], unit: "°", round: 0.5 },
  x: { color: "#ffb454", limits: [1, 2, 5, 10], unit: "", round: 0.01 },
  y: { color: "#d2a6ff", limits: [1, 2, 5, 10], unit: "", round: 0.01 },
  z: { color: "#95e6cb", limits: [1, 2, 5, 10], unit: "", round: 0.01 },
};
const HEIGHT = 150;
const RADIUS = 4;
/** Pixels at the edges, so that points at the clip's ends and at the axis' limits are whole. */
const MARGIN = RADIUS + 2;
const NEAR = 9; // pixels within which a point is taken rather than made
const HINT = {
  en: "click: add a point · drag: move it · right click: remove it",
  zh: "单击：添加点 · 拖动：移动点 · 右键单击：删除点",
};

/** The curve that fd2talk_core/pose_curve.py makes of points [[seconds, value]…] in order, at a time. */
function monotoneCubic(points, time) {
  const last = points.length - 1;
  if (time <= points[0][0]) return points[0][1];
  if (time >= points[last][0]) return points[last][1];
  const gap = (i) => points[i + 1][0] - points[i][0];
  const slope = (i) => (points[i + 1][1] - points[i][1]) / gap(i);
  const tangent = (i) => {
    if (i === 0 || i === last || slope(i - 1) * slope(i) <= 0) return 0;
    const near = 2 * gap(i) + gap(i - 1);
    const far = gap(i) + 2 * gap(i - 1);
    return (near + far) / (near / slope(i - 1) + far / slope(i));
  };
  const left = points.findIndex((point, i) => i < last && time < points[i + 1][0]);
  const s = (time - points[left][0]) / gap(left);
  const level = points[left][1] * (1 + 2 * s) * (1 - s) ** 2 + points[left + 1][1] * s ** 2 * (3 - 2 * s);
  return level + gap(left) * (tangent(left) * s * (1 - s) ** 2 - tangent(left + 1) * s ** 2 * (1 - s));
}

const EDITORS = new Views("fd2talk-pose");

class PoseCurveEditor {
  constructor(node) {
    this.born = node;
    this.axis = "yaw";
    this.dragged = null;
    this.element = Object.assign(document.createElement("div"), { className: "fd2talk-curves" });
    this.element.title = translated(HINT);
    passGesturesOn(this.element);
    EDITORS.add(this);
    this.canvas = document.createElement("canvas");
    this.names = Object.assign(document.createElement("div"), { className: "names" });
    this.names.append(...Object.keys(AXES).map((name) => this.button(name)));
    this.element.append(this.canvas, this.names);
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    this.canvas.addEventListener("pointerup", () => (this.dragged = null));
    this.canvas.addEventListener("contextmenu", (event) => this.remove(event));
    const height = () => HEIGHT;
    const options = { serialize: false, getMinHeight: height, getMaxHeight: height };
    this.widget = node.addDOMWidget("fd2talk_editor", "FD2TALK_POSE_CURVE", this.element, options);
    this.widget.serialize = false;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    for (const name of ["keyframes", "seconds"]) {
      const widget = node.widgets.find((candidate) => candidate.name === name);
      const before = widget.callback;
      widget.callback = (...given) => {
        before?.apply(widget, given);
        this.drawAll();
      };
    }
    const configured = node.onConfigure;
    node.onConfigure = (...given) => {
      configured?.apply(node, given);
      this.drawAll();
    };
  }

  get node() {
    return liveNode(this.born);
  }

  /** In each editor that the page shows for the node. */
  drawAll() {
    for (const editor of new Set([this, ...EDITORS.of(this.node)])) editor.draw();
  }

  button(name) {
    const button = Object.assign(document.createElement("button"), { textContent: name });
    button.style.color = AXES[name].color;
    button.dataset.axis = name;
    button.setAttribute("aria-pressed", String(name === this.axis));
    button.onclick = () => {
      this.axis = name;
      for (const other of this.names.children) {
        other.setAttribute("aria-pressed", String(other.dataset.axis === name));
      }
      this.draw();
    };
    return button;
  }

  value(name) {
    return this.node.widgets.find((widget) => widget.name === name).value;
  }

  /** What stands in the widget; null when someone is in the middle of typing it. */
  read() {
    try {
      const keyframes = JSON.parse(this.value("keyframes") || "{}");
      for (const points of Object.values(keyframes)) points.sort((one, other) => one[0] - other[0]);
      return keyframes;
    } catch {
      return null;
    }
  }

  write(keyframes) {
    const widget = this.node.widgets.find((candidate) => candidate.name === "keyframes");
    widget.value = JSON.stringify(keyframes);
    this.node.graph?.change?.();
    this.draw();
  }

  // Between the canvas and the clip

  /** How far the axis reaches: the smallest limit that holds its points. */
  limit(name, keyframes) {
    const highest = Math.max(0, ...(keyframes[name] ?? []).map((point) => Math.abs(point[1])));
    return AXES[name].limits.find((limit) => highest <= limit) ?? highest;
  }

  toCanvas([time, value], limit) {
    const width = this.canvas.clientWidth - 2 * MARGIN;
    const height = this.canvas.clientHeight - 2 * MARGIN;
    return [MARGIN + (time / this.value("seconds")) * width, MARGIN + (0.5 - value / (2 * limit)) * height];
  }

  /** Where the pointer is in the canvas, the page being zoomed. */
  pointer(event) {
    const box = this.canvas.getBoundingClientRect();
    const zoom = box.width / this.canvas.clientWidth;
    return [(event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom];
  }

  /** The clip's [seconds, value] at a place in the canvas, rounded to what can be read. */
  fromCanvas([x, y], limit) {
    const share = (place, length) => Math.min(Math.max((place - MARGIN) / (length - 2 * MARGIN), 0), 1);
    const time = share(x, this.canvas.clientWidth) * this.value("seconds");
    const value = (1 - 2 * share(y, this.canvas.clientHeight)) * limit;
    const { round } = AXES[this.axis];
    return [Math.round(time * 100) / 100, Math.round(Math.round(value / round) * round * 100) / 100];
  }

  /** Number of the point of the axis that is under the pointer, or -1. */
  under(event, points, limit) {
    const [x, y] = this.pointer(event);
    return points.findIndex((point) => {
      const [atX, atY] = this.toCanvas(point, limit);
      return Math.hypot(x - atX, y - atY) < NEAR;
    });
  }

  // The pointer

  press(event) {
    const keyframes = this.read();
    if (!keyframes || event.button !== 0) return;
    const limit = this.limit(this.axis, keyframes);
    const points = (keyframes[this.axis] ??= []);
    let index = this.under(event, points, limit);
    if (index < 0) {
      const point = this.fromCanvas(this.pointer(event), limit);
      if (points.some(([time]) => time === point[0])) return;
      points.push(point);
      points.sort((one, other) => one[0] - other[0]);
      index = points.indexOf(point);
      this.write(keyframes);
    }
    // a point taken beside its middle stays where it is until the pointer moves
    const [x, y] = this.pointer(event);
    const [atX, atY] = this.toCanvas(points[index], limit);
    this.dragged = { index, limit, beside: [atX - x, atY - y] };
    this.canvas.setPointerCapture(event.pointerId);
  }

  drag(event) {
    const keyframes = this.dragged && this.read();
    if (!keyframes) return;
    const { index, limit, beside } = this.dragged;
    const points = keyframes[this.axis];
    const [x, y] = this.pointer(event);
    const [time, value] = this.fromCanvas([x + beside[0], y + beside[1]], limit);
    // points keep their order, a hundredth of a second apart
    const low = index ? points[index - 1][0] + 0.01 : 0;
    const high = index < points.length - 1 ? points[index + 1][0] - 0.01 : Infinity;
    points[index] = [Math.round(Math.min(Math.max(time, low), high) * 100) / 100, value];
    this.write(keyframes);
  }

  remove(event) {
    event.preventDefault();
    event.stopPropagation();
    const keyframes = this.read();
    const points = keyframes?.[this.axis] ?? [];
    const index = keyframes ? this.under(event, points, this.limit(this.axis, keyframes)) : -1;
    if (index < 0) return;
    points.splice(index, 1);
    if (!points.length) delete keyframes[this.axis];
    this.write(keyframes);
  }

  // Drawing

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const sharp = 2 * (window.devicePixelRatio || 1);
    this.canvas.width = width * sharp;
    this.canvas.height = height * sharp;
    const pen = this.canvas.getContext("2d");
    pen.scale(sharp, sharp);
    pen.font = "10px Inter, Arial, sans-serif";
    pen.fillStyle = "rgba(128, 128, 128, 0.5)";
    pen.fillRect(0, height / 2 - 0.5, width, 1);
    const keyframes = this.read();
    if (!keyframes) return;
    const seconds = this.value("seconds");
    for (const name of Object.keys(AXES).filter((other) => other !== this.axis)) {
      this.drawCurve(pen, keyframes, name, 0.35);
    }
    this.drawCurve(pen, keyframes, this.axis, 1);
    pen.fillStyle = "rgba(160, 160, 160, 0.9)";
    pen.fillText(`±${this.limit(this.axis, keyframes)}${AXES[this.axis].unit}`, 5, 12);
    pen.textAlign = "right";
    pen.fillText(`${+seconds.toFixed(2)} s`, width - 5, height - 5);
  }

  drawCurve(pen, keyframes, name, strength) {
    const points = keyframes[name];
    if (!points?.length) return;
    const limit = this.limit(name, keyframes);
    const seconds = this.value("seconds");
    pen.globalAlpha = strength;
    pen.strokeStyle = pen.fillStyle = AXES[name].color;
    pen.lineWidth = 1.5;
    pen.beginPath();
    const steps = this.canvas.clientWidth;
    for (let step = 0; step <= steps; step += 1) {
      const time = (step / steps) * seconds;
      pen.lineTo(...this.toCanvas([time, monotoneCubic(points, time)], limit));
    }
    pen.stroke();
    if (name === this.axis) {
      for (const point of points) {
        pen.beginPath();
        pen.arc(...this.toCanvas(point, limit), RADIUS, 0, 2 * Math.PI);
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
  }
}

app.registerExtension({
  name: "FD2Talk.PoseCurve",
  nodeCreated(node) {
    if (node.comfyClass !== "FD2TalkPoseCurve") return;
    new PoseCurveEditor(node);
    const [width, height] = node.computeSize();
    node.setSize([Math.max(width, 340), height]);
  },
});
