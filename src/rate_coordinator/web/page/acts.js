"use strict";

// What somebody who has the token may do: lift limits, hold by hand and release. Goes with page.js.

const SURE_MS = 4_000;

const calming = new WeakMap();

function offerActs(node, limit) {
  const allowed = writable && token !== null;
  const byHand = limit.reason === "hold";
  offer(node.querySelector(".lift"), allowed && !byHand, `Lift the limit of ${limit.target}`);
  offer(node.querySelector(".hold"), allowed && !limit.held_until, `Hold ${limit.target} by hand`);
  offer(node.querySelector(".release"), allowed && Boolean(limit.held_until), `Release ${limit.target}`);
}

function offer(button, offered, label) {
  show(button, offered);
  button.setAttribute("aria-label", label);
}

async function write(path, body) {
  const headers = { "Authorization": `Bearer ${token}`, "Content-Type": "application/json" };
  const answer = await fetch(`api/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.status === 401) token = null;
  if (!answer.ok) throw new Error((await answer.json()).detail);
}

// The token.

$("unlock").addEventListener("click", () => $("ask").showModal());
$("ask-cancel").addEventListener("click", () => $("ask").close());
$("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  $("ask").close();
  draw();
});

// Lifting and releasing: asked for twice, because it concerns everyone.

$("limits").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const limit = button && limits.get(button.closest(".limit").dataset.key);
  if (!limit) return;
  if (button.matches(".hold")) {
    askHold(limit);
    return;
  }
  const lifts = button.matches(".lift");
  const [path, usual] = lifts ? ["clear", "Lift"] : ["release", "Release"];
  const sure = Boolean(button.dataset.sure);
  calm(button, usual);
  if (sure) {
    act(button, path, limit);
    return;
  }
  button.dataset.sure = "yes";
  put(button, lifts && limit.model === null ? "Lift it and its models for everyone?" : `${usual} for everyone?`);
  calming.set(button, setTimeout(calm, SURE_MS, button, usual));
});

function calm(button, usual) {
  clearTimeout(calming.get(button));
  delete button.dataset.sure;
  put(button, usual);
}

async function act(button, path, limit) {
  button.disabled = true;
  try {
    await write(path, { backend: limit.backend, model: limit.model });
    button.title = "";
  } catch (error) {
    put(button, "Failed: again?");
    button.title = error.message;
  }
  button.disabled = false;
  draw();
}

// Holding.

function askHold(of) {
  $("hold-backend").value = of ? of.backend : "";
  $("hold-model").value = of && of.model !== null ? of.model : "";
  show($("hold-wrong"), false);
  $("hold").showModal();
  $(of ? "hold-length" : "hold-backend").focus();
}

$("hold-any").addEventListener("click", () => askHold(null));
$("hold-cancel").addEventListener("click", () => $("hold").close());
$("hold-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const seconds = Number($("hold-length").value) * Number($("hold-unit").value);
  const [backend, model, reason] = ["backend", "model", "reason"].map((field) => $(`hold-${field}`).value);
  $("hold-submit").disabled = true;
  try {
    await write("hold", { backend, model: model === "" ? null : model, seconds, reason });
    $("hold-reason").value = "";
    $("hold").close();
  } catch (error) {
    put($("hold-wrong"), `It is not held: ${error.message}`);
    show($("hold-wrong"), true);
  }
  $("hold-submit").disabled = false;
  draw();
});
