"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("form");
  const questions = Array.from(form.querySelectorAll("fieldset"));
  const spent = questions.map(() => 0);
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const participant = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  let at = 0;
  let since = performance.now();
  let unsaved = false;

  const chosen = (question) => question.querySelector("input:checked");
  const stop = () => { spent[at] += (performance.now() - since) / 1000; since = performance.now(); };

  const show = (place) => {
    at = place;
    since = performance.now();
    questions.forEach((question, index) => { question.hidden = index !== at; });
    byId("intro").hidden = at > 0;
    byId("back").hidden = at === 0;
    byId("next").textContent = at === questions.length - 1 ? "Finish" : "Next";
    byId("alert").textContent = "";
  };

  const csv = () => {
    const rows = [["questionnaire", "participant", "question", "choice", "seconds"]];
    questions.forEach((question, index) => {
      const answer = chosen(question);
      if (answer) {
        rows.push([form.dataset.questionnaire, participant, question.dataset.question,
          answer.value, spent[index].toFixed(1)]);
      }
    });
    return rows.map((row) => row.join(",")).join("\r\n") + "\r\n";
  };

  const finish = () => {
    form.hidden = true;
    byId("intro").hidden = true;
    byId("csv").value = csv();
    byId("end").hidden = false;
    byId("end-title").focus();
  };

  const go = (step) => {
    if (step > 0 && !chosen(questions[at])) {
      byId("alert").textContent = "Choose a person or “None of them” first.";
      questions[at].querySelector("input").focus();
      return;
    }
    stop();
    if (at + step === questions.length) { finish(); return; }
    show(at + step);
    questions[at].querySelector("legend").focus();
    window.scrollTo(0, 0);
  };

  byId("back").addEventListener("click", () => go(-1));
  form.addEventListener("submit", (event) => { event.preventDefault(); go(1); });
  form.addEventListener("change", () => { unsaved = true; byId("alert").textContent = ""; });
  byId("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "answers-" + participant + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = false;
  });
  window.addEventListener("beforeunload", (event) => { if (unsaved) { event.preventDefault(); } });

  byId("buttons").hidden = false;
  show(0);
})();
