/* SPDX-License-Identifier: BSD-2-Clause */
/* list: intrusive doubly linked list with a head, in the manner of the kernel's. No locking. */
#ifndef VC_LIST_H
#define VC_LIST_H

#include "util.h"

struct vc_list {
	struct vc_list *prev, *next;
};

static inline void vc_list_init(struct vc_list *head) { head->prev = head->next = head; }
static inline bool vc_list_empty(const struct vc_list *head) { return head->next == head; }

static inline void vc_list_add_tail(struct vc_list *head, struct vc_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/** Unlink `node`; unlinking a node twice, or one that was initialised and never added, is harmless. */
static inline void vc_list_del(struct vc_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	vc_list_init(node);
}

#define vc_list_entry(ptr, type, member) vc_container_of(ptr, type, member)
#define vc_list_for_each(it, head) \
	for (struct vc_list *it = (head)->next; it != (head); it = it->next)
#define vc_list_for_each_safe(it, tmp, head) \
	for (struct vc_list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)

#endif
