// A text field above a long list of boxes hides those that do not match; ticked ones
// stay. `data-choices` is the id of the list, `data-words` the label of the field.
'use strict';
document.addEventListener('DOMContentLoaded', function () {
    for (const form of document.querySelectorAll('form[data-choices]')) {
        const list = document.getElementById(form.dataset.choices);
        const labels = list ? Array.from(list.querySelectorAll('label')) : [];
        if (labels.length < 8) { continue; }
        const field = document.createElement('input');
        field.type = 'search';
        field.setAttribute('aria-label', form.dataset.words);
        field.placeholder = form.dataset.words;
        field.addEventListener('input', function () {
            const wanted = field.value.trim().toLowerCase();
            for (const label of labels) {
                const ticked = label.querySelector('input').checked;
                label.parentElement.hidden = !ticked
                    && !label.textContent.toLowerCase().includes(wanted);
            }
        });
        // Enter would send the form.
        field.addEventListener('keydown', function (event) {
            if (event.key === 'Enter') { event.preventDefault(); }
        });
        list.before(field);
    }
});
