/*
 * The terminal of memtrace top. The only file that knows ncurses.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <ncurses.h>
#include <stdlib.h>
#include <unistd.h>

#include "top.h"

static SCREEN *screen;

int screen_open(void)
{
	if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || !getenv("TERM"))
		return 0;
	screen = newterm(NULL, stdout, stdin); /* initscr() would end the program */
	if (!screen)
		return 0;
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	return 1;
}

void screen_close(void)
{
	if (!screen)
		return;
	endwin();
	delscreen(screen);
	screen = NULL;
}

void screen_size(int *width, int *height)
{
	getmaxyx(stdscr, *height, *width);
}

void screen_redraw(void)
{
	clearok(stdscr, TRUE);
}

void screen_show(const struct top_lines *lines)
{
	erase();
	for (size_t i = 0; i < lines->count; i++)
		mvaddnstr((int)i, 0, lines->text[i], COLS);
	refresh();
}

int screen_key(int ms)
{
	int key;

	timeout(ms);
	key = getch();
	return key == ERR || key == KEY_RESIZE ? 0 : key;
}
