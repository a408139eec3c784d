// The page: a picture and labels go to the gateway of this address, and nowhere else.
"use strict";

const at = (id) => document.getElementById(id);
const state = { picture: null, url: null, stream: null, asked: 0 };
// Keys stay in this tab: they are gone when it is closed.
const storedKey = () => sessionStorage.getItem("wanwu-key") || "";

function headers() {
  const key = at("key").value.trim();
  return key ? { "X-API-Key": key, "Accept-Language": "zh-CN" } : { "Accept-Language": "zh-CN" };
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers() });
  } catch {
    throw new Error("无法连接服务，请检查网络后再试。");
  }
  if (answer.ok) return answer.json();
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // a proxy's page: only the status is known
  }
  if (answer.status === 401) at("key-row").hidden = false;
  throw new Error(problem.detail ? `${problem.title}：${problem.detail}` : `服务返回 ${answer.status}`);
}

async function loadBanks() {
  try {
    const { banks } = await ask("v1/banks");
    at("bank").replaceChildren(
      ...banks.map((bank) => new Option(`${bank.name}（${bank.labels} 个标签）`, bank.name)),
    );
    sessionStorage.setItem("wanwu-key", at("key").value.trim());
    return true;
  } catch (error) {
    showError(error.message);
    return false;
  }
}

// What was found stands out; what is under way does not.
function showStatus(text, found = false) {
  at("status").textContent = text;
  at("status").classList.toggle("found", found);
}

function showError(text) {
  at("error").textContent = text;
  at("error").hidden = false;
  showStatus("");
  at("bars").replaceChildren();
  showWarnings([]);
  at("about").hidden = true;
}

function setPicture(picture) {
  if (!picture) return;
  stopCamera();
  if (state.url) URL.revokeObjectURL(state.url);
  state.picture = picture;
  state.url = URL.createObjectURL(picture);
  at("preview").src = state.url;
  at("preview").hidden = false;
  at("hint").textContent = "换一张：拖到这里、按 Ctrl+V 粘贴，或";
  recognize();
}

async function recognize() {
  if (!at("bank").options.length && !(await loadBanks())) return;
  if (!state.picture) {
    showError("还没有图片：请先选择、拖入、粘贴或拍一张。");
    return;
  }
  const form = new FormData();
  form.append("file", state.picture);
  // The last separator of a list is none.
  const labels = at("labels").value.split(/[,，、;；\n]/).map((label) => label.trim()).filter(Boolean);
  if (labels.length) form.append("labels", labels.join("\n"));
  else if (at("bank").value) form.append("bank", at("bank").value);
  const turn = ++state.asked;
  at("go").disabled = true;
  at("error").hidden = true;
  showStatus("正在识别…");
  const started = performance.now();
  try {
    const answer = await ask("v1/recognize", { method: "POST", body: form });
    if (turn === state.asked) show(answer, performance.now() - started);
  } catch (error) {
    if (turn === state.asked) showError(error.message);
  } finally {
    if (turn === state.asked) at("go").disabled = false;
  }
}

function show(answer, ms) {
  const [picture] = answer.results;
  showStatus(
    picture.uncertain
      ? "不确定：没有一个标签足够合适。"
      : `这是：${picture.predictions[0].label}`,
    true,
  );
  showWarnings(answer.warnings);
  at("bars").replaceChildren(...picture.predictions.map(bar));
  at("seconds").textContent = `${Math.round(ms)} 毫秒，其中服务 ${Math.round(answer.seconds * 1000)} 毫秒`;
  at("model").textContent = answer.model;
  at("fingerprint").textContent = answer.fingerprint;
  at("about").hidden = false;
}

function showWarnings(warnings) {
  at("warnings").replaceChildren(
    ...warnings.map(({ text }) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  at("warnings").hidden = !warnings.length;
}

function bar(prediction) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const value = document.createElement("span");
  const progress = document.createElement("progress");
  name.textContent = prediction.label;
  value.textContent = `${(prediction.score * 100).toFixed(1)}%`;
  progress.max = 1;
  progress.value = prediction.score;
  progress.setAttribute("aria-label", `${prediction.label} ${value.textContent}`);
  item.append(name, value, progress);
  return item;
}

async function startCamera() {
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    showError("无法使用摄像头：请在浏览器里允许本页使用摄像头，并通过 https 或本机地址打开。");
    return;
  }
  const video = at("viewfinder");
  video.srcObject = state.stream;
  await video.play();
  for (const id of ["viewfinder", "shoot", "cancel"]) at(id).hidden = false;
  for (const id of ["preview", "camera"]) at(id).hidden = true;
  at("shoot").focus();
}

function stopCamera() {
  if (!state.stream) return;
  for (const track of state.stream.getTracks()) track.stop();
  state.stream = null;
  for (const id of ["viewfinder", "shoot", "cancel"]) at(id).hidden = true;
  at("camera").hidden = false;
  at("preview").hidden = !at("preview").hasAttribute("src");
}

function shoot() {
  const video = at("viewfinder");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(setPicture, "image/jpeg", 0.92);
}

// The browser cannot draw every picture that the service reads, such as TIFF.
at("preview").addEventListener("error", () => {
  at("preview").removeAttribute("src");
  at("preview").hidden = true;
});
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", (event) => setPicture(event.target.files[0]));
at("camera").addEventListener("click", startCamera);
at("shoot").addEventListener("click", shoot);
at("cancel").addEventListener("click", stopCamera);
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  recognize();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") setPicture(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files][0];
  if (pasted) setPicture(pasted);
});
at("key").value = storedKey();
loadBanks();
