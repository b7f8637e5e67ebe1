// Moves the code of an invitation from the link into the form, and out of the address bar and the history.
"use strict";

const code = window.location.hash.slice(1);
if (code) {
  document.getElementById("code").value = code;
  window.history.replaceState(null, "", window.location.pathname);
}
