// Pictures that go in from a form, and the part of one that is marked.

import { Failure } from "./api.js";
import { MaskEditor } from "./mask.js";

export class Given {
  // With an input for files, an empty part of the page for marking, and what can be marked while no picture goes in.
  constructor(input, place, otherwise = () => null) {
    Object.assign(this, { input, otherwise, url: null, mask: new MaskEditor(place) });
    input.addEventListener("change", () => this.show());
  }

  // A part of a single picture can be marked; what was marked before is forgotten.
  show() {
    const files = [...this.input.files];
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = files.length === 1 ? URL.createObjectURL(files[0]) : null;
    this.mask.show(this.url ?? (files.length ? null : this.otherwise()));
  }

  clear() {
    this.input.value = "";
    this.show();
  }

  // As a body carries them.
  async fields() {
    const image = await Promise.all([...this.input.files].map(asDataUrl));
    const mask = this.mask.mask;
    return { ...(image.length ? { image } : {}), ...(mask ? { mask_image: mask } : {}) };
  }
}

function asDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Failure(`${file.name}: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
}
