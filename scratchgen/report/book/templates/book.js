// Sliders beside pictures.  All numbers were computed by the package when the book was written; they stand in the page.
"use strict";

const SIZE = 640, REACH = 3;  // pixels of the map; it shows [-3, 3] in both directions
const ALONG = (value) => SIZE * (value / REACH + 1) / 2;

function say(data, i) {
  const name = `${data.symbol} = ${data.values[i]}`;
  const numbers = Object.entries(data.rows).map(([row, numbers]) => `${row} ${numbers[i].toFixed(data.digits)}`);
  return [name, `${name}: ${numbers.join(", ")}${data.unit}.`].map((text) => text.replace(/-(?=\d)/g, "−"));
}

function mark(line, image, data, i) {
  line.style.left = `${image.offsetLeft + data.places[i] * image.offsetWidth}px`;
  line.style.top = `${image.offsetTop + data.top * image.offsetHeight}px`;
  line.style.height = `${data.height * image.offsetHeight}px`;
}

function draw(canvas, map, i) {
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
  pen.clearRect(0, 0, SIZE, SIZE);
  pen.fillStyle = style.getPropertyValue("--soft");
  pen.font = "20px sans-serif";
  for (const [text, value] of [["−2", -2], ["0", 0], ["2", 2], ["x₁", 2.8]]) pen.fillText(text, ALONG(value) - 8, SIZE - 8);
  for (const [text, value] of [["−2", -2], ["0", 0], ["2", 2], ["x₂", 2.8]]) pen.fillText(text, 6, ALONG(-value) + 7);
  map.x0.forEach(([x, y], n) => {
    const [dx, dy] = map.noise[n], scale = map.scale[i], std = map.std[i];
    pen.fillRect(ALONG(scale * x + std * dx) - 2, ALONG(-scale * y - std * dy) - 2, 5, 5);
  });
  pen.strokeStyle = style.getPropertyValue("--accent");
  pen.lineWidth = 2;
  map.grid.forEach(([x, y], n) => {
    const [u, v] = map.arrows[i][n], tip = [ALONG(x + u), ALONG(-y - v)];
    const angle = Math.atan2(-v, u), head = Math.min(9, 40 * Math.hypot(u, v));
    pen.beginPath();
    pen.moveTo(ALONG(x), ALONG(-y));
    pen.lineTo(...tip);
    for (const side of [2.6, -2.6]) {
      pen.moveTo(...tip);
      pen.lineTo(tip[0] + head * Math.cos(angle + side), tip[1] + head * Math.sin(angle + side));
    }
    pen.stroke();
  });
}

for (const slider of document.querySelectorAll(".slider")) {
  const data = JSON.parse(slider.querySelector("script").textContent);
  const [input, output, canvas] = ["input", "output", "canvas"].map((tag) => slider.querySelector(tag));
  const image = document.querySelector(`#figure-${slider.dataset.figure} img`);
  const line = data.places ? image.parentElement.appendChild(document.createElement("span")) : null;
  if (line) line.className = "marker";
  const show = () => {
    const i = input.valueAsNumber, [name, text] = say(data, i);
    input.setAttribute("aria-valuetext", name);
    if (output.textContent !== text) output.textContent = text;
    if (line) mark(line, image, data, i);
    if (canvas) draw(canvas, data.map, i);
  };
  slider.hidden = false;
  input.addEventListener("input", show);
  addEventListener("resize", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  if (image.complete) show();
  else image.addEventListener("load", show);
}
