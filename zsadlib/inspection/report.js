"use strict";
const page = document.body;
const low = Number(page.dataset.low), high = Number(page.dataset.high), given = Number(page.dataset.threshold);
const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  verdict: card.querySelector(".verdict"),
  score: Number(card.dataset.score),
  given: card.dataset.verdict,
}));
const byId = (id) => document.getElementById(id);
const empty = byId("empty");

function announceEmpty(counts) {
  const show = page.dataset.show;
  empty.hidden = !cards.length || counts[show] !== 0;
  if (!empty.hidden) empty.textContent = `No photograph is ${show} at this threshold.`;
}

const counts = { abnormal: 0, normal: 0 };

// At the threshold of the report its own verdicts stand: a method may have found them in another way.
function judge(threshold, own) {
  counts.abnormal = counts.normal = 0;
  for (const one of cards) {
    const verdict = own ? one.given : one.score >= threshold ? "abnormal" : "normal";
    counts[verdict] += 1;
    if (one.verdict.textContent === verdict) continue;
    one.verdict.textContent = verdict;
    one.card.classList.toggle("abnormal", verdict === "abnormal");
    one.card.classList.toggle("normal", verdict === "normal");
  }
  for (const [verdict, count] of Object.entries(counts)) {
    for (const place of document.querySelectorAll(`[data-count="${verdict}"]`)) place.textContent = count;
  }
  announceEmpty(counts);
}

function at(value) {
  return Math.min(100, Math.max(0, (100 * (value - low)) / (high - low)));
}

function draw(threshold) {
  const x = at(threshold);
  byId("below-area").setAttribute("width", `${x}%`);
  byId("above-area").setAttribute("x", `${x}%`);
  for (const end of ["x1", "x2"]) byId("line").setAttribute(end, `${x}%`);
}

function move(threshold, source) {
  const own = threshold === given;
  judge(threshold, own);
  draw(threshold);
  if (source !== "slider") byId("slider").value = threshold;
  if (source !== "number") byId("number").value = own ? Number(given.toPrecision(6)) : threshold;
  byId("reset").disabled = own;
  byId("trial").hidden = own;
}

if (cards.length) {
  for (const end of ["x1", "x2"]) byId("given").setAttribute(end, `${at(given)}%`);
  byId("slider").addEventListener("input", (event) => move(Number(Number(event.target.value).toFixed(page.dataset.decimals)), "slider"));
  byId("number").addEventListener("input", (event) => {
    if (event.target.value !== "") move(Number(event.target.value), "number");
  });
  byId("reset").addEventListener("click", () => {
    byId("slider").focus(); // the button is about to be disabled, and would take the focus with it
    move(given);
  });
  move(given);
}

for (const radio of document.querySelectorAll("[name=show]")) {
  radio.addEventListener("change", () => {
    page.dataset.show = radio.value;
    announceEmpty(counts);
  });
}
byId("maps")?.addEventListener("change", (event) => page.classList.toggle("without", !event.target.checked));
