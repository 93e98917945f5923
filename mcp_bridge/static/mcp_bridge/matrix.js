// Arrow keys move between ticks; changed ticks are marked and counted. Works without.
'use strict';
const form = document.getElementById('matrix-form');
if (form) {
    const count = document.getElementById('matrix-count');
    const boxes = Array.from(form.querySelectorAll('input[type=checkbox]'));
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

    function marked() {
        let changed = 0;
        for (const box of boxes) {
            const differs = box.checked !== box.defaultChecked;
            box.closest('td').classList.toggle('changed', differs);
            changed += differs;
        }
        if (count) {
            count.textContent = changed === 0 ? '' : changed === 1
                ? count.dataset.one : count.dataset.many.replace('%s', changed);
        }
    }

    function next(box, down, right) {
        let row = box.closest('tr');
        let column = box.closest('td').cellIndex;
        while (row) {
            row = down ? (down > 0 ? row.nextElementSibling : row.previousElementSibling) : row;
            column += right;
            const cell = row && row.cells[column];
            if (!cell) {
                return;
            }
            const found = cell.querySelector('input[type=checkbox]');
            if (found) {
                found.focus();
                return;
            }
        }
    }

    form.addEventListener('change', marked);
    form.addEventListener('keydown', function (event) {
        const move = moves[event.key];
        if (move && event.target.type === 'checkbox') {
            event.preventDefault();
            next(event.target, move[0], move[1]);
        }
    });
    marked();
}
