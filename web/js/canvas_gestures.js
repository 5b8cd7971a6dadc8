/** Zooming and moving the graph with the pointer over an element that stands in a node. */

import { app } from "../../../scripts/app.js";

const MIDDLE = 1;
const MIDDLE_HELD = 4;

/**
 * Lets the classic canvas have the wheel and the middle button over an element, which lies above it and takes
 * them otherwise. Nodes 2.0 passes them on by itself.
 */
export function passGesturesOn(element) {
  const pass = (kind, method, wanted) =>
    element.addEventListener(kind, (event) => {
      if (LiteGraph.vueNodesMode || !wanted(event)) return;
      event.preventDefault();
      event.stopPropagation();
      app.canvas[method](event);
    });
  pass("wheel", "processMouseWheel", () => true);
  pass("pointerdown", "processMouseDown", ({ button }) => button === MIDDLE);
  pass("pointermove", "processMouseMove", ({ buttons }) => buttons & MIDDLE_HELD);
  pass("pointerup", "processMouseUp", ({ button }) => button === MIDDLE);
}
