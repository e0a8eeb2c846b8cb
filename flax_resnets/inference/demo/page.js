"use strict";

const element = (id) => document.getElementById(id);
const about = JSON.parse(document.documentElement.dataset.about);
element("source").textContent = about.source;

let picture = null; // the file that is shown
let newest = 0; // number of the last request; answers to earlier ones are dropped

function say(message, isError = false) {
  element("status").textContent = isError ? "" : message;
  element("error").textContent = isError ? message : "";
  element("error").hidden = !isError;
}

// A bar behind the text. It is drawn by attributes, because the page's policy allows no inline styles.
function bar(share) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  svg.setAttribute("class", "bar");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("height", "100%");
  rect.setAttribute("width", `${100 * share}%`);
  svg.append(rect);
  return svg;
}

function row(prediction, heat) {
  const name = document.createElement("span");
  name.textContent = prediction.class_name;
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = `${(100 * prediction.probability).toFixed(1)} %`;
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.index = prediction.index;
  button.append(bar(prediction.probability), name, share);
  if (heat.overlay) {
    button.title = "Show what speaks for this class";
    button.setAttribute("aria-pressed", String(prediction.index === heat.index));
    button.addEventListener("click", () => send(picture, prediction.index));
  } else {
    button.disabled = true;
  }
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function show({ predictions, heat }) {
  const focused = document.activeElement?.dataset?.index; // the rows are made anew
  element("classes").replaceChildren(...predictions.map((each) => row(each, heat)));
  if (focused !== undefined) element("classes").querySelector(`[data-index="${Number(focused)}"]`)?.focus();
  element("heat").hidden = !heat.overlay;
  if (heat.overlay) {
    for (const name of ["picture", "overlay"]) {
      const image = element(name);
      image.onload = () => image.classList.toggle("small", image.naturalWidth < 100);
      image.src = heat[name];
    }
    element("caption").textContent = `what speaks for “${heat.class_name}” (Grad-CAM at ${heat.stage}; red is most)`;
    element("overlay").alt = `Heat map of what speaks for ${heat.class_name}`;
  }
  element("result").hidden = false;
  const [first] = predictions;
  say(`${first.class_name}, ${(100 * first.probability).toFixed(1)} %` + (heat.overlay ? "" : "; this network has no heat map"));
}

async function send(file, classIndex = null) {
  if (!file) return;
  const mine = ++newest;
  if (file.size > about.most_bytes) {
    fail(`${file.name}: has ${(file.size / 1e6).toFixed(1)} MB; at most ${about.most_bytes / 1e6} MB are taken`);
    return;
  }
  say(`looking at ${file.name} …`);
  element("result").setAttribute("aria-busy", "true");
  try {
    const query = classIndex === null ? "" : `?class=${classIndex}`;
    const response = await fetch(`explain${query}`, { method: "POST", body: file });
    const answer = await response.json();
    if (mine !== newest) return;
    if (answer.error) {
      fail(`${file.name}: ${answer.error.replace(/^picture: /, "")}`);
    } else {
      picture = file;
      show(answer);
    }
  } catch {
    if (mine === newest) fail("the server does not answer; is it still running?");
  } finally {
    if (mine === newest) element("result").removeAttribute("aria-busy");
  }
}

function fail(message) {
  element("result").hidden = true;
  element("result").removeAttribute("aria-busy");
  say(message, true);
}

function take(files) {
  const [file, ...others] = files;
  if (others.length) say("one picture at a time; here is the first");
  if (file) send(file);
}

element("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length) take(files);
  else say("there is no picture to paste", true);
});
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault(); // the browser would open the file in place of the page
  element("drop").classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else say("that is no file; drop a picture from a folder", true);
});
