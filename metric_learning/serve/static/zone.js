// A place for one picture: drop, paste, choose, camera. It tells `changed` when it has another picture, or none.

const BYTES = Number(document.body.dataset.bytes);

export class Zone {
  constructor(element, changed) {
    this.element = element;
    this.field = element.dataset.field;
    this.file = null;
    this.changed = changed;
    this.input = element.querySelector(".drop input");
    this.image = element.querySelector("img");
    for (const input of element.querySelectorAll("input")) {
      input.addEventListener("change", () => {
        const [file] = input.files;
        if (file) this.take(file);
        input.value = ""; // so that the same file can be chosen again
      });
    }
    this.image.addEventListener("error", () => this.preview(false));
    this.part("remove").addEventListener("click", () => {
      this.clear();
      this.input.focus();
    });
  }

  part(name) {
    return this.element.querySelector(`.${name}`);
  }

  take(file) {
    this.drop();
    const problem = this.unfit(file);
    if (problem) {
      this.say(problem);
    } else {
      this.file = file;
      this.image.src = URL.createObjectURL(file);
      this.image.alt = `Preview: ${file.name}`;
      this.part("name").textContent = file.name;
    }
    this.draw();
    this.changed();
  }

  clear() {
    this.drop();
    this.draw();
    this.changed();
  }

  unfit(file) {
    if (!file.size) return "The file is empty.";
    return file.size > BYTES ? `The file is larger than ${document.body.dataset.megabytes} MB.` : "";
  }

  drop() {
    if (this.file) URL.revokeObjectURL(this.image.src);
    this.image.removeAttribute("src");
    this.file = null;
    this.say("");
  }

  draw() {
    const full = this.file !== null;
    this.element.classList.toggle("full", full);
    this.part("prompt").hidden = full;
    this.part("name").hidden = !full;
    this.part("remove").hidden = !full;
    this.part("camera").hidden = full;
    this.preview(full);
    this.part("no-preview").hidden = true;
  }

  preview(shown) {
    this.image.hidden = !shown;
    this.part("no-preview").hidden = shown || !this.file;
  }

  say(problem) {
    this.part("problem").textContent = problem;
    this.element.classList.toggle("wrong", problem !== "");
    this.input.setAttribute("aria-invalid", String(problem !== ""));
  }
}
