// Marking a part of a picture with a finger, a mouse or keys: what is marked is drawn again, and the rest stays.

import { el, onLanguage, t } from "./words.js";

const SIDES = [512, 2048]; // pixels of the longer side: fine enough for a brush, and what every phone has memory for
const BRUSH = 12; // per cent of the longer side
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class MaskEditor {
  // Builds itself into an empty part of the page, which is hidden while no picture can be marked.
  constructor(place) {
    this.place = place;
    this.picture = el("img", { alt: "" });
    this.canvas = el("canvas", { tabindex: "0", role: "application" });
    this.ring = el("span", { class: "ring", hidden: true });
    this.brush = el("input", { type: "range", min: "3", max: "40", value: String(BRUSH) });
    this.note = el("p", { class: "faint", role: "status" });
    this.pen = this.canvas.getContext("2d");
    this.stripes = this.pen.createPattern(striped(), "repeat");
    this.picture.addEventListener("load", () => this.fit());
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this.lift());
    this.canvas.addEventListener("pointerleave", () => { this.ring.hidden = true; });
    this.canvas.addEventListener("blur", () => { this.ring.hidden = true; });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.brush.addEventListener("input", () => this.showRing());
    onLanguage(() => this.build());
    this.show(null);
  }

  // Have a picture marked, by its address in this tab; without one there is nothing to mark.
  show(url) {
    this.place.hidden = !url;
    if (url) this.picture.src = url;
    else this.picture.removeAttribute("src");
    this.wipe();
    const details = this.place.querySelector("details");
    if (details) details.open = false;
  }

  // White where the picture is to be drawn again, black elsewhere; null if nothing is marked.
  get mask() {
    if (!this.marked) return null;
    const mask = el("canvas", { width: this.canvas.width, height: this.canvas.height });
    const pen = mask.getContext("2d");
    pen.drawImage(this.canvas, 0, 0);
    for (const [rule, colour] of [["source-in", "white"], ["destination-over", "black"]]) {
      pen.globalCompositeOperation = rule;
      pen.fillStyle = colour;
      pen.fillRect(0, 0, mask.width, mask.height);
    }
    return mask.toDataURL("image/png");
  }

  build() {
    const open = this.place.querySelector("details")?.open ?? false;
    this.canvas.setAttribute("aria-label", t("mask_canvas"));
    const clear = el("button", { type: "button", onclick: () => this.wipe() }, t("mask_clear"));
    this.place.replaceChildren(
      el(
        "details", { open },
        el("summary", {}, t("mask_open")),
        el("p", { class: "faint" }, t("mask_how")),
        el("div", { class: "stage" }, this.picture, this.canvas, this.ring),
        el("div", { class: "row" }, el("label", { class: "check" }, `${t("mask_brush")} `, this.brush), clear),
        this.note,
      ),
    );
    this.say();
  }

  // The canvas has the shape of the picture; its strokes are kept at a size of their own.
  fit() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const longer = Math.max(width, height);
    const scale = Math.min(Math.max(longer, SIDES[0]), SIDES[1]) / longer;
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    this.picture.classList.toggle("small", longer < SIDES[0] / 2);
    this.wipe();
  }

  wipe() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    Object.assign(this, { marked: false, down: false, spot: [this.canvas.width / 2, this.canvas.height / 2] });
    this.ring.hidden = true;
    this.say();
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.spot = this.under(event);
    this.down = true;
    this.paint(this.spot);
  }

  move(event) {
    const spot = this.under(event);
    if (this.down) this.paint(spot);
    this.spot = spot;
    this.showRing();
  }

  lift() {
    this.down = false;
    this.say();
  }

  // Arrows move the brush, Space puts it down and lifts it.
  key(event) {
    const step = MOVES[event.key];
    if (event.key === " ") {
      this.down = !this.down;
      if (this.down) this.paint(this.spot);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.wipe();
    } else if (step) {
      const far = this.radius() / 2;
      const within = (value, most) => Math.min(Math.max(value, 0), most);
      const spot = [within(this.spot[0] + step[0] * far, this.canvas.width), within(this.spot[1] + step[1] * far, this.canvas.height)];
      if (this.down) this.paint(spot);
      this.spot = spot;
    } else return;
    event.preventDefault();
    this.showRing();
    this.say();
  }

  // From the last place of the brush to another.
  paint(to) {
    Object.assign(this.pen, { lineWidth: 2 * this.radius(), lineCap: "round", strokeStyle: this.stripes });
    this.pen.beginPath();
    this.pen.moveTo(...this.spot);
    this.pen.lineTo(to[0] + 0.01, to[1]); // a line without length would leave no dot
    this.pen.stroke();
    this.marked = true;
  }

  radius() {
    return (Number(this.brush.value) / 200) * Math.max(this.canvas.width, this.canvas.height);
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * this.canvas.width) / box.width, ((event.clientY - box.top) * this.canvas.height) / box.height];
  }

  showRing() {
    const shown = this.canvas.clientWidth / this.canvas.width;
    const across = 2 * this.radius() * shown;
    Object.assign(this.ring.style, {
      width: `${across}px`, height: `${across}px`, left: `${this.spot[0] * shown}px`, top: `${this.spot[1] * shown}px`,
    });
    this.ring.hidden = false;
  }

  say() {
    this.note.textContent = t(this.marked ? "mask_marked" : "mask_none");
  }
}

// Black and white, so that it shows on every picture.
function striped() {
  const tile = el("canvas", { width: 16, height: 16 });
  const pen = tile.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, 16, 16);
  Object.assign(pen, { strokeStyle: "black", lineWidth: 5.6 });
  for (const at of [-16, 0, 16]) {
    pen.beginPath();
    pen.moveTo(at - 4, 20);
    pen.lineTo(at + 20, -4);
    pen.stroke();
  }
  return tile;
}
