/* SPDX-License-Identifier: BSD-2-Clause */
/* volume_impl: what the files of the layer volume share. */
#ifndef VC_VOLUME_IMPL_H
#define VC_VOLUME_IMPL_H

#include "pool_impl.h"
#include "volume.h"

/* Aligned writes of at least this go straight to chunk files. */
#define VOL_DIRECT_MIN (64u << 10)
/* Blocks resolved at a time. */
#define VOL_WINDOW 256u
/* Bases that share through others, at most this deep; then a checkpoint flattens them first. */
#define VOL_REF_DEPTH_MAX 16u

/* Checkpoints and sweeps that may overtake one read before something must be missing. */
#define VOL_STALE_TRIES 16

/** A reader met -ESTALE: sleep until the checkpoint that overtook it has swapped the views. 0, or -EIO when the pool failed. */
int vol_wait_for_checkpoint(struct vc_pool *pool) VC_MUST_CHECK;

/** The pool of an inode. */
struct vc_pool *vol_pool(const struct vc_inode *inode);
/** 0 for a regular file, else -EISDIR or -EINVAL. */
int vol_check_image(const struct vc_inode *inode) VC_MUST_CHECK;

/** Lock the inode once no other operation is busy with blocks lba .. lba + nblocks - 1. */
void vol_lock_range(struct vc_inode *inode, uint64_t lba, uint64_t nblocks) VC_ACQUIRES(inode->lock);
/** Make others wait for these blocks until vol_idle. Inode lock held. */
void vol_busy_locked(struct vc_inode *inode, struct vc_busy_range *range, uint64_t lba, uint64_t nblocks);
void vol_idle(struct vc_inode *inode, struct vc_busy_range *range);

/** Lock up to 4 inodes in the order of their numbers; NULLs and repetitions are skipped. */
void vol_lock_inodes(struct vc_inode *const *inodes, size_t n) VC_NO_ANALYSIS;
void vol_unlock_inodes(struct vc_inode *const *inodes, size_t n) VC_NO_ANALYSIS;

/** Read whole blocks lba .. lba + nblocks - 1, wherever they are, size not regarded. */
int vol_read_blocks(struct vc_inode *inode, uint64_t lba, uint64_t nblocks, uint8_t *buf) VC_MUST_CHECK;

/** Sum of each 4 KiB block. */
void vol_sums(const void *data, uint64_t nblocks, uint32_t *sums);

/** A record is logged and applied: copy it out and submit; `done` as vc_log_submit. */
static inline void vol_submit(struct vc_pool *pool, struct vc_record *rec, const struct vc_log_slot *slot, bool durable,
			      struct vc_done *done)
{
	vc_record_emit(rec, slot->lsn, slot->buf);
	vc_log_submit(pool->log, slot, durable, done);
}

/*
 * Whoever keeps a range busy has been admitted to the log before: a write that was admitted waits for the range, and the log may not get
 * room again before that write is logged. So the longest record is admitted first and vol_fit_admission gives back the rest.
 */
/** `rec` is built; `admitted` bytes were. 0, or an error of the record, its admission given back. */
int vol_fit_admission(struct vc_pool *pool, struct vc_record *rec, size_t admitted) VC_MUST_CHECK;

/** Admit (sleeping if need be), log and apply `rec` under locks the caller takes in between: see uses. */
int vol_admit_record(struct vc_pool *pool, struct vc_record *rec, enum vc_log_class class) VC_MUST_CHECK;

#endif
