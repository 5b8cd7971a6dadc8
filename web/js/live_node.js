/** Nodes as they are now: after an undo, a change of tabs or a reload the page has made every node anew. */

import { app } from "../../../scripts/app.js";

const rootGraph = () => app.rootGraph ?? app.graph;

/** Every node of the graph and of the subgraphs in it. */
export function allNodes() {
  const graphs = [rootGraph(), ...(rootGraph().subgraphs?.values() ?? [])];
  return graphs.flatMap((graph) => graph.nodes);
}

/** The node that stands where this one was made: itself, or the one that has its id in the graph on view. */
export function liveNode(node) {
  const { graph } = node;
  const current = graph && (graph === rootGraph() || rootGraph().subgraphs?.get(graph.id) === graph);
  if (current && graph.getNodeById(node.id) === node) return node;
  const found = app.canvas?.graph?.getNodeById(node.id);
  return found?.comfyClass === node.comfyClass ? found : node;
}

/** Under which name the page stores what a node has put out. */
export function outputKey(node) {
  return node.graph && node.graph !== rootGraph() ? `${node.graph.id}:${node.id}` : String(node.id);
}

/** The node with an execution id: ids from the outermost subgraph inwards, joined by colons. */
export function nodeByExecution(executionId) {
  let graph = rootGraph();
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/**
 * All that shows a node on the page: a view has an element and the node that it was made for. Nodes 2.0 may go
 * on showing the element of the node before.
 */
export class Views {
  #ofElement = new WeakMap();

  constructor(className) {
    this.className = className;
  }

  add(view) {
    view.element.classList.add(this.className);
    this.#ofElement.set(view.element, view);
  }

  of(node) {
    const elements = [...document.getElementsByClassName(this.className)];
    return elements.map((element) => this.#ofElement.get(element)).filter((view) => view.node === liveNode(node));
  }
}
