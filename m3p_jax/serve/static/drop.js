// A picture is sent as it is; the server answers with the name it knows it by.
const zone = element.querySelector('.m3p-drop');
const input = element.querySelector('input');
const own = element.querySelector('.m3p-own');
const error = element.querySelector('.m3p-error');

function say(message) {
  error.textContent = message;
  error.hidden = !message;
  zone.classList.remove('m3p-working');
}

async function look(file) {
  say('');
  if (!file) return;
  if (file.size > props.limit) {
    const limit = Math.round(props.limit / 2 ** 20);
    own.hidden = true;
    say(`The file is larger than ${limit} MB: make it smaller first.`);
    return;
  }
  zone.classList.add('m3p-working');
  let answer;
  try {
    const response = await fetch('look', {method: 'POST', body: file});
    answer = await response.json();
  } catch (failure) {
    answer = {error: 'The server cannot be reached.'};
  }
  if (answer.error) {
    own.hidden = true;
    say(answer.error);
    return;
  }
  if (own.src) URL.revokeObjectURL(own.src);
  own.src = URL.createObjectURL(file);
  own.hidden = false;
  zone.classList.remove('m3p-working');
  document.body.dataset.m3pOwn = own.src;
  trigger('upload', {name: answer.name});
}

input.addEventListener('change', () => {
  look(input.files[0]);
  input.value = '';
});
// A picture may be dropped anywhere: a browser would leave the page for it.
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, event => {
    event.preventDefault();
    zone.classList.add('m3p-over');
  });
}
document.addEventListener('dragleave', event => {
  if (!event.relatedTarget) zone.classList.remove('m3p-over');
});
document.addEventListener('drop', event => {
  event.preventDefault();
  zone.classList.remove('m3p-over');
  look(event.dataTransfer.files[0]);
});
document.addEventListener('paste', event => {
  if (event.clipboardData.files.length) look(event.clipboardData.files[0]);
});
