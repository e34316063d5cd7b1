// Pictures come in: by file, folder, drop, paste, or from the samples.

import { $ } from "./dom.js";
import { upload } from "./api.js";
import { emit, on } from "./bus.js";
import { application, changed, others, session, setPhoto } from "./session.js";

let wanted = null; // where the chosen file goes: a function, or null for the usual place

/** Let the user choose a file; `place` gets what was stored. */
export function choose(place = null) {
  wanted = place;
  $("#files").multiple = place === null;
  $("#files").click();
}

/** Store files and put each where it belongs. */
export async function take(files, place = null) {
  const images = [...files];
  if (!images.length) return;
  if (session.page === "batch" && !place) {
    emit("batch-files", images);
    return;
  }
  for (const file of images.slice(0, place ? 1 : 2)) {
    emit("said", `opening ${file.name}…`);
    try {
      const item = await upload(file, file.name || "pasted.png");
      emit("said", `${item.name}: ${item.width} x ${item.height}`);
      (place ?? put)(item);
    } catch (error) {
      emit("failed", error.message);
    }
  }
  if (images.length > (place ? 1 : 2)) emit("said", "more than two files at once: open Batch for them");
}

/** The usual place: the photograph, then what the application still lacks, then the photograph again. */
function put(item) {
  const one = application();
  const lacking = one?.inputs.find((input) => !input.leading && input.required && !others()[input.name]);
  if (session.photo && lacking) {
    others()[lacking.name] = item;
    changed();
  } else setPhoto(item);
}

/** Give the files that were dropped, those of folders too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files];
  if (!entries.some((entry) => entry.isDirectory)) return files;
  return (await Promise.all(entries.map(within))).flat().filter((file) => file.type.startsWith("image/"));
}

async function within(entry) {
  if (entry.isFile) return new Promise((done) => entry.file((file) => done([file]), () => done([])));
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader gives a hundred at a time.
    const some = await new Promise((done) => reader.readEntries(done, () => done([])));
    if (!some.length) return (await Promise.all(found.map(within))).flat();
    found.push(...some);
  }
}

export function listen() {
  $("#open").addEventListener("click", () => choose());
  $("#open-here").addEventListener("click", () => choose());
  for (const input of [$("#files"), $("#folder")]) {
    input.addEventListener("change", () => {
      // A folder is for no place of the form; and what was chosen once is not chosen for the next files.
      take(input.files, input.id === "folder" ? null : wanted);
      wanted = null;
      input.value = "";
    });
  }
  addEventListener("paste", (event) => {
    if (event.target.closest("input, textarea")) return;
    take([...event.clipboardData.files].filter((file) => file.type.startsWith("image/")));
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const place = event.target.closest("[data-slot]")?.place ?? null;
    dropped(event.dataTransfer).then((files) => take(files, place));
  });
  on("choose", choose);
}
