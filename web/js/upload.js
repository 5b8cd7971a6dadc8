/** Upload buttons for the nodes that read a file from the input folder; files can also be dropped on the node. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { translated } from "./translated.js";

/**
 * Node id -> the widget that names the file, what the file dialog offers, and whether Nodes 2.0 has an upload
 * button of its own in that widget.
 */
const UPLOADS = {
  LoadAudioWav2Vec: {
    widget: "audio_file",
    accept: "audio/*,video/*",
    label: { en: "upload a recording", zh: "上传录音" },
    hostsOwn: true,
  },
  FD2TalkLoadCoefficients: {
    widget: "motion_file",
    accept: ".safetensors,.npz,.json,.csv,.mat",
    label: { en: "upload a motion file", zh: "上传动作文件" },
    hostsOwn: false,
  },
};

/** Puts a file into the host's input folder; returns the name that the host gave it. */
async function upload(file) {
  const body = new FormData();
  body.append("image", file); // the host's upload route takes any file under this name
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (answer.status !== 200) throw new Error(`${file.name} was not uploaded: ${answer.statusText}`);
  const { name, subfolder } = await answer.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

async function uploadInto(node, widgetName, file) {
  try {
    const name = await upload(file);
    const widget = node.widgets.find((candidate) => candidate.name === widgetName);
    const values = widget.options.values;
    if (Array.isArray(values) && !values.includes(name)) values.push(name);
    widget.value = name;
    widget.callback?.(name);
    node.setDirtyCanvas(true, true);
  } catch (error) {
    app.extensionManager.toast.add({ severity: "error", summary: "FD2Talk", detail: error.message });
  }
}

function choose(accept, take) {
  const dialog = Object.assign(document.createElement("input"), { type: "file", accept });
  dialog.onchange = () => dialog.files.length && take(dialog.files[0]);
  dialog.click();
}

app.registerExtension({
  name: "FD2Talk.Upload",
  nodeCreated(node) {
    const entry = UPLOADS[node.comfyClass];
    if (!entry || !node.widgets?.some((widget) => widget.name === entry.widget)) return;
    const take = (file) => uploadInto(node, entry.widget, file);
    const open = () => choose(entry.accept, take);
    const options = { serialize: false, canvasOnly: entry.hostsOwn };
    const button = node.addWidget("button", translated(entry.label), null, open, options);
    button.serialize = false;
    node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
    node.onDragDrop = async (event) => {
      const [file] = event.dataTransfer.files;
      if (!file) return false;
      await take(file);
      return true;
    };
  },
});
