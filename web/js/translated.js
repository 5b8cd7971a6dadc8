import { app } from "../../../scripts/app.js";

/** A text in the page's language: {en: …, zh: …}. */
export function translated(texts) {
  return texts[app.extensionManager?.setting?.get("Comfy.Locale")] ?? texts.en;
}
