/*
 * What the steps and epochs of a run are: steps from marks, epochs from marks and phases whose label
 * begins with "epoch", else from DataLoader workers that are made anew.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_EPOCHS_H
#define MEMTRACE_ANALYZER_EPOCHS_H

#include "analysis/verdict.h"
#include "model/model.h"

struct epochs;

struct epochs *epochs_new(const struct model *m);
void epochs_free(struct epochs *e);

/* Fills v->edges with the beginnings of epochs, as seen by a process. */
void epochs_edges(const struct epochs *e, uint32_t process, const struct cohorts *c,
		  struct cohort_view *v);
/* The share of the program's steps that lie between two times; -1: too few are known to say. */
double epochs_share_of_steps(const struct epochs *e, uint32_t process, double from_ns,
			     double to_ns);
/* Steps and epochs per second between two times; 0: not known. */
void epochs_rates(const struct epochs *e, uint32_t process, double from_ns, double to_ns,
		  double *steps, double *epochs);

#endif
