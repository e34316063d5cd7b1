// The page begins here.

import { $, fill, h } from "./dom.js";
import { get } from "./api.js";
import { on } from "./bus.js";
import { help, models, samples } from "./dialogs.js";
import { labelOf } from "./forms.js";
import { listen as listenToKeys } from "./keys.js";
import { listen as listenToFiles } from "./open.js";
import { listen as listenToJobs } from "./running.js";
import { changed, restore, session } from "./session.js";
import "./history.js";
import "./panel.js";
import "./sheet.js";
import "./workspace.js";

function tabs() {
  const names = [...Object.keys(session.applications), "pipeline", "batch"];
  fill(
    $("#applications"),
    names.map((name) =>
      h("button", {
        type: "button",
        "aria-current": name === session.page ? "page" : null,
        onclick: () => {
          session.page = name;
          tell("", false);
          // Another application begins with its tools; its own result is looked at again.
          if (session.shown) session.mode = session.shown.application === name ? session.compare : "edit";
          changed();
        },
      }, labelOf(name))),
  );
}

function tell(text, failed) {
  const line = $("#message");
  line.classList.toggle("error", failed);
  line.textContent = text;
}

on("said", (text) => tell(text, false));
on("failed", (text) => tell(text, true));
on("session", tabs);

$("#samples").addEventListener("click", samples);
$("#samples-here").addEventListener("click", samples);
$("#models").addEventListener("click", models);
$("#help").addEventListener("click", help);
listenToFiles();
listenToKeys();

try {
  const found = await get("/api/applications");
  session.limits = found.limits;
  session.applications = Object.fromEntries(found.applications.map((one) => [one.name, one]));
  await restore();
  listenToJobs();
  changed();
  document.documentElement.dataset.ready = "true";
} catch (error) {
  tell(error.message, true);
}
