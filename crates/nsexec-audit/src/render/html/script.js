(function () {
  var form = document.getElementById("filter");
  var calls = Array.from(document.querySelectorAll(".call"));
  function apply() {
    var off = new Set();
    form.querySelectorAll("input[type=checkbox]").forEach(function (box) {
      if (!box.checked) off.add(box.name + "=" + box.value);
    });
    var text = form.elements.text.value.toLowerCase();
    var shown = 0;
    calls.forEach(function (call) {
      var other = off.has("stage=" + call.dataset.stage) || off.has("kind=" + call.dataset.kind);
      var hide = other || call.textContent.toLowerCase().indexOf(text) === -1;
      call.hidden = hide;
      if (!hide) shown += 1;
    });
    document.getElementById("count").textContent = shown + " of " + calls.length + " calls";
  }
  function open(all) {
    calls.forEach(function (call) { call.open = all ? !call.hidden : false; });
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  document.getElementById("open").addEventListener("click", function () { open(true); });
  document.getElementById("close").addEventListener("click", function () { open(false); });
  form.hidden = false;
  apply();
})();
