/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_tree: vclone tree, the ancestry of all images of a mount.
 *
 * Every regular file below the mount point is asked for its origin. Nodes are kept in an array, sorted by inode number to
 * find parents; children are linked in name order. A parent that has no name any more (deleted) gets a node
 * of its own when something descends from it. Origins can form a ring (an emptied file that receives a copy of its own
 * descendant): what no root reaches is shown as a root.
 */
#include "config.h"
#include "vclone_impl.h"

#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_INDENT_MAX 30 /* deeper levels are not indented further: their depth is printed */

struct tree_node {
	char *name;       /* relative to the mount point; NULL: deleted */
	uint64_t ino, origin, logical, own;
	uint32_t nnames;  /* hard links seen */
	struct tree_node *child, *sibling; /* children and roots in name order */
	bool shown;
};

struct tree {
	struct tree_node *nodes;
	size_t n, room;
	struct tree_node *roots;
	int status;
};

static int tree_add(struct tree *t, const struct tree_node *node)
{
	if (t->n == t->room) {
		size_t room = t->room ? 2 * t->room : 256;
		struct tree_node *nodes = reallocarray(t->nodes, room, sizeof(*nodes));

		if (!nodes)
			return -ENOMEM;
		t->nodes = nodes;
		t->room = room;
	}
	t->nodes[t->n++] = *node;
	return 0;
}

static int tree_add_file(struct tree *t, const char *path, const char *name)
{
	struct vclonefs_info info;
	struct tree_node node;
	int fd, r;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0) {
		vc_cli_error("%s: %s", path, strerror(errno));
		t->status = VC_EXIT_FAILED;
		return 0;
	}
	r = vc_cli_image_info(fd, path, &info);
	close(fd);
	if (r < 0) {
		t->status = VC_EXIT_FAILED;
		return 0;
	}
	node = (struct tree_node){ .name = strdup(name), .ino = info.ino, .origin = info.origin, .nnames = 1,
				   .logical = info.logical, .own = info.own };
	r = node.name ? tree_add(t, &node) : -ENOMEM;
	if (r < 0)
		free(node.name);
	return r;
}

static int tree_collect(struct tree *t, char *root)
{
	char *paths[] = { root, NULL };
	size_t skip = strlen(root) > 1 ? strlen(root) + 1 : 1;
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	FTSENT *entry;
	int r = 0;

	if (!fts)
		return -errno;
	while (r == 0 && (entry = fts_read(fts)) != NULL) {
		if (entry->fts_info == FTS_F && S_ISREG(entry->fts_statp->st_mode)) {
			r = tree_add_file(t, entry->fts_path, entry->fts_path + skip);
		} else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
			vc_cli_error("%s: %s", entry->fts_path, strerror(entry->fts_errno));
			t->status = VC_EXIT_FAILED;
		}
	}
	fts_close(fts);
	return r;
}

static int compare_ino(const void *a, const void *b)
{
	const struct tree_node *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return strcmp(x->name ? x->name : "", y->name ? y->name : "");
}

static int compare_name(const void *a, const void *b)
{
	const struct tree_node *x = *(struct tree_node *const *)a, *y = *(struct tree_node *const *)b;

	if (!x->name || !y->name)
		return x->name ? -1 : y->name ? 1 : compare_ino(x, y);
	return strcmp(x->name, y->name);
}

/** Sort by inode number and keep one node of each: the first name. */
static void tree_unite(struct tree *t)
{
	size_t n = 0;

	if (t->n == 0)
		return;
	qsort(t->nodes, t->n, sizeof(*t->nodes), compare_ino);
	for (size_t i = 1; i < t->n; i++) {
		if (t->nodes[i].ino == t->nodes[n].ino) {
			t->nodes[n].nnames++;
			free(t->nodes[i].name);
		} else {
			t->nodes[++n] = t->nodes[i];
		}
	}
	t->n = n + 1;
}

static struct tree_node *tree_find(struct tree *t, uint64_t ino)
{
	struct tree_node key = { .ino = ino };
	size_t low = 0, high = t->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (t->nodes[middle].ino < key.ino)
			low = middle + 1;
		else
			high = middle;
	}
	return low < t->n && t->nodes[low].ino == ino ? &t->nodes[low] : NULL;
}

/** Add a nameless node for every origin that has none. */
static int tree_add_deleted(struct tree *t)
{
	size_t n = t->n;

	for (size_t i = 0; i < n; i++) {
		struct tree_node node = { .ino = t->nodes[i].origin };
		size_t all = t->n;
		bool known;

		t->n = n;
		known = node.ino == 0 || tree_find(t, node.ino);
		t->n = all;
		if (!known && tree_add(t, &node) < 0)
			return -ENOMEM;
	}
	tree_unite(t);
	return 0;
}

/** Link children and roots; going through the nodes by name backwards and pushing in front leaves lists in name order. */
static int tree_link(struct tree *t)
{
	struct tree_node **order = calloc(t->n + 1, sizeof(*order));

	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < t->n; i++)
		order[i] = &t->nodes[i];
	qsort(order, t->n, sizeof(*order), compare_name);
	for (size_t i = t->n; i-- > 0;) {
		struct tree_node *node = order[i];
		struct tree_node *parent = node->origin ? tree_find(t, node->origin) : NULL;
		struct tree_node **list = parent && parent != node ? &parent->child : &t->roots;

		node->sibling = *list;
		*list = node;
	}
	free(order);
	return 0;
}

static void print_node(const struct tree_node *node, size_t level)
{
	if (level > TREE_INDENT_MAX)
		printf("(level %zu) ", level);
	if (node->name)
		vc_cli_put_name(stdout, node->name);
	else
		printf("(deleted, inode %" PRIu64 ")", node->ino);
	if (node->name)
		printf("  %s, own %s", vc_cli_size(node->logical, 0), vc_cli_size(node->own, 1));
	if (node->nnames > 1 && node->name)
		printf(", %u names", node->nnames);
	putchar('\n');
}

/** Lines before a node: `more` has a bit per level that goes on below, level 1 at bit 0. */
static void print_lead(uint64_t more, size_t level, bool utf8)
{
	size_t n = VC_MIN(level, (size_t)TREE_INDENT_MAX);

	for (size_t i = 1; i < n; i++)
		fputs(more >> (i - 1) & 1 ? (utf8 ? "│  " : "|  ") : "   ", stdout);
	if (n == 0)
		return;
	if (more >> (n - 1) & 1)
		fputs(utf8 ? "├─ " : "|- ", stdout);
	else
		fputs(utf8 ? "└─ " : "`- ", stdout);
}

/**
 * Print `root` and what is below it. The way up is kept on a stack of our own: families are as deep as people make them.
 */
static int print_family(struct tree *t, struct tree_node *root, bool utf8)
{
	struct tree_node **stack = calloc(t->n + 1, sizeof(*stack)); /* next to print at each level */
	size_t level = 0;
	uint64_t more = 0;

	if (!stack)
		return -ENOMEM;
	stack[0] = root;
	for (;;) {
		struct tree_node *node = stack[level];

		if (!node) {
			if (level-- == 0)
				break;
			continue;
		}
		stack[level] = level > 0 ? node->sibling : NULL;
		if (node->shown)
			continue;
		if (level > 0 && level <= TREE_INDENT_MAX)
			more = stack[level] ? more | UINT64_C(1) << (level - 1) : more & ~(UINT64_C(1) << (level - 1));
		node->shown = true;
		print_lead(more, level, utf8);
		print_node(node, level);
		if (node->child)
			stack[++level] = node->child;
	}
	free(stack);
	return 0;
}

static int tree_print(struct tree *t)
{
	bool utf8 = setlocale(LC_CTYPE, "") && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	int r = 0;

	for (struct tree_node *node = t->roots; r == 0 && node; node = node->sibling)
		r = print_family(t, node, utf8);
	for (size_t i = 0; r == 0 && i < t->n; i++)
		if (!t->nodes[i].shown)
			r = print_family(t, &t->nodes[i], utf8);
	return r;
}

static void tree_print_json(const struct tree *t)
{
	struct vc_json j;

	vc_json_begin(&j, stdout);
	vc_json_open(&j, NULL, '[');
	for (size_t i = 0; i < t->n; i++) {
		const struct tree_node *node = &t->nodes[i];

		vc_json_open(&j, NULL, '{');
		vc_json_u64(&j, "inode", node->ino);
		if (node->name)
			vc_json_string(&j, "name", node->name);
		else
			vc_json_null(&j, "name");
		vc_json_bool(&j, "deleted", !node->name);
		if (node->origin)
			vc_json_u64(&j, "origin_inode", node->origin);
		else
			vc_json_null(&j, "origin_inode");
		if (node->name) {
			vc_json_u64(&j, "logical_bytes", node->logical);
			vc_json_u64(&j, "own_bytes", node->own);
		}
		vc_json_close(&j, '{');
	}
	vc_json_close(&j, '[');
}

static int tree_of(struct tree *t, const char *path, bool as_json)
{
	struct vc_cli_mount mount;
	int fd, r;

	r = vc_cli_open(path, 0, &fd);
	if (r < 0)
		return r;
	r = vc_cli_mount_of(fd, path, &mount);
	close(fd);
	if (r < 0)
		return r;
	r = tree_collect(t, mount.point);
	if (r == 0) {
		tree_unite(t);
		r = tree_add_deleted(t);
	}
	if (r == 0)
		r = tree_link(t);
	if (r == 0 && as_json)
		tree_print_json(t);
	else if (r == 0)
		r = tree_print(t);
	if (r < 0)
		vc_cli_error("%s: %s", mount.point, strerror(-r));
	return r;
}

static int command_tree(const struct vc_command *cmd, int argc, char **argv)
{
	struct tree t = { .status = VC_EXIT_OK };
	bool as_json;
	int status = vc_cli_options(cmd, argc, argv, 0, 1, &as_json);

	if (status >= 0)
		return status;
	if (tree_of(&t, optind < argc ? argv[optind] : ".", as_json) < 0)
		t.status = VC_EXIT_FAILED;
	for (size_t i = 0; i < t.n; i++)
		free(t.nodes[i].name);
	free(t.nodes);
	return vc_cli_finish(t.status);
}

const struct vc_command vc_command_tree = {
	.name = "tree",
	.args = "[--json] [PATH]",
	.summary = "show which image was cloned from which",
	.help =
	"All images of the mount that PATH (or the current directory) is on. A parent that was deleted is shown as such:\n"
	"its clones do not need it. --json prints a flat list; origin_inode points to the parent.\n",
	.run = command_tree,
};
