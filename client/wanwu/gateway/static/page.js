// The page: images and labels go to the gateway of this address, and nowhere else.
"use strict";

// A label alone is shown from this score on, and only where the model can reject: see verdict().
const SURE = 0.8;
const at = (id) => document.getElementById(id);
const make = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const state = { images: [], urls: [], banks: [], stream: null, turn: 0, chinese: true };

// ---- Language

function t(text, ...values) {
  const template = state.chinese ? text : ENGLISH[text];
  return template.replace(/\{(\d)\}/g, (_, place) => values[place]);
}

function setLanguage(chinese) {
  state.chinese = chinese;
  document.documentElement.lang = chinese ? "zh-CN" : "en";
  for (const each of document.querySelectorAll("[data-t]")) {
    const where = each.dataset.t || "textContent";
    each.dataset.zh ??= each.getAttribute(where) ?? each.textContent;
    if (where === "textContent") each.textContent = t(each.dataset.zh);
    else each.setAttribute(where, t(each.dataset.zh));
  }
  Object.assign(at("language"), chinese ? { textContent: "English", lang: "en" } : { textContent: "中文", lang: "zh-CN" });
  hideErrors();
  showBanks();
  if (state.images.length) recognize(); // the service's texts come in one language
  else {
    at("status").textContent = t("还没有图片。选一张，或先用示例试一试。");
    if (!state.banks.length) loadBanks();
  }
}

// ---- The service

/** Return the header that the credential goes into, by its form: a JWT has three parts. */
function credential() {
  const text = at("key").value.trim().replace(/^Bearer\s+/i, "");
  const token = /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text);
  return text && { name: token ? "Authorization" : "X-API-Key", scheme: token ? "Bearer " : "", text };
}

const problem = (text, status = 0, code = "") => Object.assign(new Error(text), { status, code });

async function ask(path, options = {}) {
  const used = credential();
  if (used && /[^\x21-\x7e]/.test(used.text)) throw problem(t("访问凭据里有不能使用的字符，请重新复制。"), 401);
  const headers = { "Accept-Language": state.chinese ? "zh-CN" : "en" };
  if (used) headers[used.name] = used.scheme + used.text;
  const answer = await fetch(path, { ...options, headers }).catch(() => {
    throw problem(t("无法连接服务，请检查网络后再试。"));
  });
  if (answer.ok) return answer;
  // Of a proxy's own page only the status is known.
  const { code, title, detail } = await answer.json().catch(() => ({}));
  let text = code ? (state.chinese ? `${title}：${detail}` : `${title}: ${detail}`) : t("服务返回 {0}", answer.status);
  if (code === "credentials_missing") text = t("请先填写访问凭据。");
  else if (answer.status === 401 && code) text = t("{0}。请检查后再试，或向服务的管理员索取新的。", title);
  throw problem(text, answer.status, code);
}

async function loadBanks() {
  try {
    state.banks = (await (await ask("v1/banks")).json()).banks;
  } catch (error) {
    showError(error);
    return false;
  }
  hideErrors();
  // Credentials stay in this tab: they are gone when it is closed.
  sessionStorage.setItem("wanwu-key", at("key").value.trim());
  at("access").hidden = !at("key").value;
  showBanks();
  return true;
}

function showBanks() {
  const chosen = at("bank").value;
  at("bank").replaceChildren(...state.banks.map((bank) => new Option(t("{0}（{1} 个标签）", bank.name, bank.labels), bank.name)));
  if (chosen) at("bank").value = chosen;
}

async function showBankLabels() {
  const name = at("bank").value;
  if (!at("bank-details").open || !name) return;
  at("bank-labels").textContent = "…";
  try {
    const { labels } = await (await ask(`v1/banks/${encodeURIComponent(name)}/labels`)).json();
    if (name === at("bank").value) at("bank-labels").textContent = labels.join(state.chinese ? "、" : ", ");
  } catch (error) {
    at("bank-labels").textContent = "";
    showError(error);
  }
}

function hideErrors() {
  for (const id of ["error", "access-error"]) at(id).hidden = true;
}

/** Show what went wrong where it can be put right. */
function showError(error) {
  const denied = error.status === 401;
  for (const waiting of document.querySelectorAll("#cards .waiting")) waiting.remove();
  if (denied) at("access").hidden = false;
  const place = at(denied ? "access-error" : "error");
  place.textContent = error.message;
  place.hidden = denied && error.code === "credentials_missing" && !state.images.length;
  at("status").textContent = denied ? t("请先填写访问凭据。") : "";
  bringIntoSight(denied ? at("access") : at("answer"));
}

function bringIntoSight(part) {
  const { top } = part.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 4) part.scrollIntoView();
}

// ---- Recognition

function setImages(files) {
  if (!files.length) return;
  stopCamera();
  state.urls.forEach(URL.revokeObjectURL);
  state.images = [...files];
  state.urls = state.images.map((image) => URL.createObjectURL(image));
  recognize();
}

function fields() {
  const typed = at("labels").value.trim();
  // The last separator of a list is none.
  const split = typed.split(/[,，、;；\n]/).map((label) => label.trim()).filter(Boolean);
  const labels = typed.startsWith("[") ? typed : split.length && JSON.stringify(split);
  const named = { labels, bank: labels ? "" : at("bank").value, top_k: at("top-k").value.trim(), threshold: at("threshold").value.trim() };
  return Object.entries(named).filter(([, value]) => value);
}

/** Ask for each image by itself, so that many large ones pass and each answer is shown as it comes. */
async function recognize() {
  const turn = ++state.turn;
  hideErrors();
  if (!state.images.length) {
    if (state.banks.length || (await loadBanks())) showError(problem(t("还没有图片：请先选择、拖入、粘贴或拍一张。")));
    return;
  }
  const cards = state.images.map(waitingCard);
  at("cards").replaceChildren(...cards);
  bringIntoSight(at("answer"));
  if (!state.banks.length && (!(await loadBanks()) || turn !== state.turn)) return;
  const chosen = fields();
  for (const [place, image] of state.images.entries()) {
    at("status").textContent = cards.length > 1 ? t("正在识别第 {0} 张，共 {1} 张…", place + 1, cards.length) : "";
    try {
      const request = new FormData();
      request.append("file", image);
      for (const [name, value] of chosen) request.append(name, value);
      const started = performance.now();
      const answer = await (await ask("v1/recognize", { method: "POST", body: request })).json();
      if (turn !== state.turn) return;
      fill(cards[place], answer, performance.now() - started, image.name, chosen);
      if (place === 0) bringIntoSight(at("answer")); // now the page is long enough for it
    } catch (error) {
      if (turn !== state.turn) return;
      // What is wrong with the request is wrong for every image.
      if (!error.code?.startsWith("picture_")) return showError(error);
      finish(cards[place], "", make("p", { className: "wrong", textContent: error.message }));
    }
  }
  at("status").textContent = cards.length > 1 ? t("共 {0} 张图片。", cards.length) : "";
}

function waitingCard(image, place) {
  const thumbnail = make("img", { src: state.urls[place], alt: t("图片 {0}", place + 1) });
  // The browser cannot draw every image that the service reads, such as TIFF.
  thumbnail.addEventListener("error", () => thumbnail.remove());
  const about = make("p", { className: "note", textContent: t("正在识别…") });
  return make("li", { className: "waiting" }, thumbnail, make("div", {}, about));
}

function finish(card, name, ...parts) {
  card.className = name;
  card.querySelector("div").replaceChildren(...parts);
}

/** Say 不确定 where the service does, and a label alone only where it is sure; else 最接近.
 *
 * Sure is what the model could have rejected (a bank's `rejects`), what nothing is doubtful about,
 * and what has a score of at least SURE. Under a softmax alone, some label always comes out best. */
function verdict(found, rejects) {
  if (found.uncertain) return t("不确定");
  const [best] = found.predictions;
  const sure = rejects && !found.warnings.length && best.score >= SURE;
  return sure ? best.label : t("最接近：{0}", best.label);
}

function fill(card, answer, ms, file, chosen) {
  const [found] = answer.results;
  // Own labels are scored by the default bank's contract, which is the first.
  const bank = state.banks.find(({ name }) => answer.banks.includes(name)) ?? state.banks[0];
  const warnings = found.warnings.map(({ text }) => text);
  if (found.uncertain && !warnings.length) warnings.push(t("没有足够合适的标签；可以换一些标签，或降低最低分数。"));
  const details = make("details", {}, make("summary", { textContent: t("代码与 JSON") }));
  details.ariaLive = "off";
  const texts = [["curl", curl(file, chosen)], ["Python", python(file, chosen)], [t("结果（JSON）"), JSON.stringify(answer, null, 2)]];
  for (const [title, text] of texts) details.append(make("h4", { textContent: title }), make("pre", { textContent: text }));
  finish(
    card,
    found.uncertain ? "uncertain" : "",
    make("h3", { textContent: verdict(found, bank.rejects) }),
    make("ul", { className: "warnings", hidden: !warnings.length }, ...warnings.map((text) => make("li", { textContent: text }))),
    make("ol", { className: "bars" }, ...found.predictions.map(bar)),
    make("p", { className: "note", textContent: t("{0}，{1} 毫秒", answer.model, Math.round(ms)) }),
  );
  card.append(details);
}

function bar({ label, score }) {
  const value = `${(score * 100).toFixed(1)}%`;
  const progress = make("progress", { max: 1, value: Math.max(0, score), ariaLabel: `${label} ${value}` });
  return make("li", {}, make("span", { textContent: label }), make("span", { textContent: value }), progress);
}

// ---- The same request by other means, with the credential from the environment

const address = () => new URL("v1/recognize", document.baseURI).href;

function curl(file, chosen) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  // In -F a comma or semicolon ends a file's name, unless it is in double quotes.
  const path = /[;,"\\]/.test(file) ? `"${file.replace(/["\\]/g, "\\$&")}"` : file;
  const used = credential();
  return [
    `curl ${quote(address())}`,
    ...(used ? [`-H "${used.name}: ${used.scheme}$WANWU_KEY"`] : []),
    `-F ${quote(`file=@${path}`)}`,
    ...chosen.map(([name, value]) => `--form-string ${quote(`${name}=${value}`)}`),
  ].join(" \\\n  ");
}

function python(file, chosen) {
  const text = JSON.stringify;
  const used = credential();
  const header = used && `    headers={${text(used.name)}: ${used.scheme ? text(used.scheme) + " + " : ""}os.environ["WANWU_KEY"]},\n`;
  return `${used ? "import os\n" : ""}import requests

answer = requests.post(
    ${text(address())},
${header}    files={"file": open(${text(file)}, "rb")},
    data={${chosen.map(([name, value]) => `${text(name)}: ${text(value)}`).join(", ")}},
)
print(answer.text)`;
}

// ---- The camera

async function startCamera() {
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    showError(problem(t("无法使用摄像头：请在浏览器里允许本页使用摄像头，并通过 https 或本机地址打开。")));
    return;
  }
  const video = at("viewfinder");
  video.srcObject = state.stream;
  await video.play();
  for (const id of ["viewfinder", "shoot", "cancel"]) at(id).hidden = false;
  at("camera").hidden = true;
  at("shoot").focus();
}

function stopCamera() {
  if (!state.stream) return;
  for (const track of state.stream.getTracks()) track.stop();
  state.stream = null;
  for (const id of ["viewfinder", "shoot", "cancel"]) at(id).hidden = true;
  at("camera").hidden = false;
}

function shoot() {
  const video = at("viewfinder");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((data) => setImages([new File([data], "photo.jpg", { type: data.type })]), "image/jpeg", 0.92);
}

async function trySample({ target }) {
  const source = target.closest("button").querySelector("img").getAttribute("src");
  try {
    const data = await (await ask(source)).blob();
    setImages([new File([data], source.split("/").pop(), { type: data.type })]);
  } catch (error) {
    showError(error);
  }
}

// ---- What people do

at("language").addEventListener("click", () => {
  localStorage.setItem("wanwu-language", state.chinese ? "en" : "zh");
  setLanguage(!state.chinese);
});
at("access").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ((await loadBanks()) && state.images.length) recognize();
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  recognize();
});
at("bank").addEventListener("change", showBankLabels);
at("bank-details").addEventListener("toggle", showBankLabels);
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => {
  setImages(target.files);
  target.value = ""; // the same file may be chosen again
});
at("camera").addEventListener("click", startCamera);
at("shoot").addEventListener("click", shoot);
at("cancel").addEventListener("click", stopCamera);
for (const sample of document.querySelectorAll("#samples button")) sample.addEventListener("click", trySample);
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") setImages(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => setImages(event.clipboardData.files));

at("key").value = sessionStorage.getItem("wanwu-key") || "";
setLanguage((localStorage.getItem("wanwu-language") || navigator.language).startsWith("zh"));
