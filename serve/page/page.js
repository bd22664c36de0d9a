"use strict";

const FIELDS = [
  { name: "MedInc", title: "Median income", unit: "in 10,000 USD a year", low: 0.5, high: 15, step: 0.05 },
  { name: "HouseAge", title: "Age of the houses", unit: "median, in years", low: 1, high: 52, step: 1 },
  { name: "AveRooms", title: "Rooms", unit: "per household", low: 1, high: 12, step: 0.05 },
  { name: "AveBedrms", title: "Bedrooms", unit: "per household", low: 0.5, high: 3, step: 0.01 },
  { name: "Population", title: "People", unit: "in the district", low: 3, high: 6000, step: 1 },
  { name: "AveOccup", title: "People per household", unit: "on average", low: 1, high: 8, step: 0.05 },
];
const NAMES = Object.fromEntries(FIELDS.map((field) => [field.name, field.title]));
const BOUNDS = { north: 42.2, south: 32.3, west: -124.6, east: -114.0 };
const STRETCH = Math.cos((37.2 * Math.PI) / 180); // a degree of longitude against one of latitude
const COLOURS = [[243, 217, 164], [224, 138, 91], [168, 62, 91], [74, 29, 92]];
const CITIES = [ // with the side of the dot on which there is room for the name
  { name: "San Francisco", latitude: 37.77, longitude: -122.42, side: "right", below: 22 },
  { name: "Sacramento", latitude: 38.58, longitude: -121.49, side: "left", below: 0 },
  { name: "Fresno", latitude: 36.74, longitude: -119.79, side: "left", below: 0 },
  { name: "Los Angeles", latitude: 34.05, longitude: -118.24, side: "right", below: 26 },
  { name: "San Diego", latitude: 32.72, longitude: -117.16, side: "right", below: 0 },
];
const TOP_PRICE = 5;
const STEP = 0.02;
const PATIENCE_MS = 8000;
const RETRY_MS = 3000;

const byId = (id) => document.getElementById(id);
const usd = (value) =>
  value.toLocaleString("en-US", { style: "currency", currency: "USD", maximumFractionDigits: 0 });

let place = { latitude: 37.85, longitude: -122.25 };
let points = new Float32Array(0);
let asked = 0;
let waiting = 0;
let retry = 0;
let secret = "";

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(secret && { "X-API-Key": secret }) };
  const answer = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) byId("unlock").hidden = false;
  if (!answer.ok) throw Object.assign(new Error(`status ${answer.status}`), await told(answer));
  return answer;
}

async function told(answer) {
  const said = await answer.json().catch(() => ({}));
  const wrong = (said.problems ?? []).map(
    (one) => `${NAMES[one.field] ?? one.field}: ${one.problem}; expected ${one.expected}.`);
  return { wrong: wrong.join(" "), said: [said.detail, said.what_to_do].filter(Boolean).join(" ") };
}

function away(error) {
  document.body.classList.add("stale");
  byId("notice").hidden = false;
  byId("notice").textContent = error.wrong || (error.said
    ? `The server cannot answer: ${error.said}`
    : "The server is away. What you see may be out of date; this page tries again by itself.");
  clearTimeout(retry);
  if (!error.wrong) retry = setTimeout(start, RETRY_MS);
}

function back() {
  document.body.classList.remove("stale");
  byId("notice").hidden = true;
  clearTimeout(retry);
}

function buildForm() {
  for (const field of FIELDS) {
    const row = document.createElement("div");
    row.className = "field";
    row.innerHTML = `<label for="${field.name}">${field.title}</label>
      <input type="number" id="${field.name}" step="any">
      <input type="range" aria-label="${field.title}" id="${field.name}-slider"
        min="${field.low}" max="${field.high}" step="${field.step}">
      <span class="unit">${field.unit}</span>`;
    byId("district").append(row);
    const [number, slider] = row.querySelectorAll("input");
    number.addEventListener("input", () => { slider.value = number.value; askSoon(); });
    slider.addEventListener("input", () => { number.value = slider.value; askSoon(); });
  }
  byId("district").addEventListener("submit", (event) => event.preventDefault());
}

function fill(features) {
  for (const { name } of FIELDS) {
    const value = features[name] === null ? "" : Number(features[name].toPrecision(5));
    byId(name).value = value;
    byId(`${name}-slider`).value = value;
  }
}

function district() {
  const filled = FIELDS.map(({ name }) => [name, byId(name).value === "" ? null : Number(byId(name).value)]);
  return { ...Object.fromEntries(filled), Latitude: place.latitude, Longitude: place.longitude };
}

function askSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => predict().catch(away), 120);
}

async function predict() {
  const number = ++asked;
  const answer = await ask("/predict?explain=true", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(district()),
  });
  const said = await answer.json();
  if (number === asked) show(said); // an older answer that comes late is not shown
}

function show(said) {
  back();
  byId("price").textContent = usd(said.predicted_median_house_value_usd);
  showInterval(said);
  showFlags(said);
  showDrivers(said.explanation, said.predicted_median_house_value_usd);
  byId("model").textContent = `Model: ${said.model_name}, version ${said.model_version}`;
}

function showInterval({ predicted_median_house_value: price, interval }) {
  const percent = (value) => `${Math.min(100, Math.max(0, (100 * value) / TOP_PRICE))}%`;
  byId("mark").style.left = percent(price);
  byId("band").hidden = !interval;
  byId("interval").textContent = "This model gives no interval.";
  if (!interval) return;
  byId("band").style.left = percent(interval.low);
  byId("band").style.right = `calc(100% - ${percent(interval.high)})`;
  byId("interval").textContent = `In ${Math.round(100 * interval.coverage)} of 100 such districts the true value
    lies between ${usd(interval.low_usd)} and ${usd(interval.high_usd)}.`;
}

function showFlags(said) {
  const flags = [];
  if (said.at_cap) flags.push("The census recorded no values above $500,001: where the model learned its prices, the true one may be higher.");
  if (said.far_from_training) flags.push("No known district is near: this price is a guess.");
  for (const name of said.imputed) flags.push(`${NAMES[name] ?? name} is unknown; a typical value was taken.`);
  byId("flags").replaceChildren(...flags.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  const km = said.nearest_training_district_km;
  byId("near").textContent = km === null ? "" : `The nearest district that the model has learned from is ${
    km < 1 ? "less than 1 km" : `${Math.round(km)} km`} away.`;
}

function showDrivers({ typical_usd: typical, contributions }, price) {
  const largest = Math.max(...contributions.map((one) => Math.abs(one.value_usd)), 1);
  const rows = contributions.map(({ feature, value_usd: value }) => {
    const bar = document.createElement("div");
    bar.className = value < 0 ? "bar down" : "bar";
    bar.style.width = `${(100 * Math.abs(value)) / largest}%`;
    return line(NAMES[feature] ?? feature, bar, `${value < 0 ? "−" : "+"}${usd(Math.abs(value))}`);
  });
  const sum = line("This district", "", usd(price));
  sum.className = "sum";
  byId("drivers").tBodies[0].replaceChildren(line("Typical district", "", usd(typical)), ...rows, sum);
}

function line(title, bar, amount) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = title;
  row.append(head);
  row.insertCell().append(bar);
  row.insertCell().textContent = amount;
  return row;
}

function project(latitude, longitude, width, height) {
  const { north, south, west, east } = BOUNDS;
  const scale = Math.min(width / ((east - west) * STRETCH), height / (north - south));
  const left = (width - (east - west) * STRETCH * scale) / 2;
  const top = (height - (north - south) * scale) / 2;
  return [left + (longitude - west) * STRETCH * scale, top + (north - latitude) * scale, scale, left, top];
}

function colour(price) {
  const along = Math.min(1, Math.max(0, (price - 0.15) / (TOP_PRICE - 0.15))) * (COLOURS.length - 1);
  const from = Math.min(COLOURS.length - 2, Math.floor(along));
  const mixed = COLOURS[from].map((value, k) => value + (along - from) * (COLOURS[from + 1][k] - value));
  return `rgb(${mixed.map(Math.round).join(",")})`;
}

function draw() {
  const canvas = byId("map");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  const size = Math.max(2, canvas.width / 260);
  for (let k = 0; k < points.length; k += 3) {
    const [x, y] = project(points[k], points[k + 1], canvas.width, canvas.height);
    pen.fillStyle = colour(points[k + 2]);
    pen.fillRect(x - size / 2, y - size / 2, size, size);
  }
  label(pen, CITIES, ratio);
  const [x, y] = project(place.latitude, place.longitude, canvas.width, canvas.height);
  for (const [style, wide] of [["#ffffff", 6], ["#0b2c3d", 3]]) {
    pen.strokeStyle = style;
    pen.lineWidth = wide * ratio * 0.6;
    pen.beginPath();
    pen.arc(x, y, 8 * ratio, 0, 2 * Math.PI);
    pen.stroke();
  }
  byId("place").textContent =
    `${place.latitude.toFixed(2)}° north, ${Math.abs(place.longitude).toFixed(2)}° west`;
}

function label(pen, cities, ratio) {
  pen.font = `${12 * ratio}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = "rgba(255, 255, 255, 0.8)";
  pen.fillStyle = "#33393e";
  for (const { name: text, latitude, longitude, side, below } of cities) {
    const [x, y] = project(latitude, longitude, pen.canvas.width, pen.canvas.height);
    pen.textAlign = side;
    const beside = side === "right" ? Math.max(x - 14 * ratio, pen.measureText(text).width + 4 * ratio) : x + 14 * ratio;
    const at = [beside, y + below * ratio];
    pen.strokeText(text, ...at);
    pen.fillText(text, ...at);
  }
}

async function move(latitude, longitude) {
  place = {
    latitude: Math.min(BOUNDS.north, Math.max(BOUNDS.south, Number(latitude.toFixed(4)))),
    longitude: Math.min(BOUNDS.east, Math.max(BOUNDS.west, Number(longitude.toFixed(4)))),
  };
  draw();
  await fromNearest();
}

async function fromNearest() {
  const { latitude, longitude } = place;
  const answer = await ask(`/districts/nearest?latitude=${latitude}&longitude=${longitude}`);
  const found = await answer.json();
  if (latitude !== place.latitude || longitude !== place.longitude) return; // moved on meanwhile
  fill(found.features);
  await predict();
}

function listenToMap() {
  const canvas = byId("map");
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const [, , scale, left, top] = project(0, 0, box.width, box.height);
    const longitude = BOUNDS.west + (event.clientX - box.left - left) / scale / STRETCH;
    const latitude = BOUNDS.north - (event.clientY - box.top - top) / scale;
    move(latitude, longitude).catch(away);
  });
  const steps = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const far = event.shiftKey ? 25 * STEP : STEP;
    move(place.latitude + step[0] * far, place.longitude + step[1] * far).catch(away);
  });
  new ResizeObserver(draw).observe(canvas);
}

async function start() {
  try {
    if (!points.length) points = new Float32Array(await (await ask("/districts")).arrayBuffer());
    draw();
    await (byId("MedInc").value === "" ? fromNearest() : predict());
  } catch (error) {
    away(error);
  }
}

byId("reset").addEventListener("click", () => fromNearest().catch(away));
byId("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  secret = byId("secret").value;
  byId("unlock").hidden = true;
  start();
});
buildForm();
listenToMap();
start();
