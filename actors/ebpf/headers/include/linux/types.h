/* The kernel's integer types: all that bcc's own headers take from linux/types.h. */
#pragma once
typedef signed char __s8;
typedef unsigned char __u8;
typedef signed short __s16;
typedef unsigned short __u16;
typedef signed int __s32;
typedef unsigned int __u32;
typedef signed long long __s64;
typedef unsigned long long __u64;
typedef __s8 s8, int8_t;
typedef __u8 u8, uint8_t;
typedef __s16 s16, int16_t;
typedef __u16 u16, uint16_t;
typedef __s32 s32, int32_t;
typedef __u32 u32, uint32_t;
typedef __s64 s64, int64_t;
typedef __u64 u64, uint64_t;
typedef __u16 __le16, __be16, __sum16;
typedef __u32 __le32, __be32, __wsum;
typedef __u64 __le64, __be64;
typedef unsigned long size_t;
typedef long ssize_t;
typedef unsigned long uintptr_t;
typedef int pid_t;
typedef __u64 __aligned_u64 __attribute__((aligned(8)));
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
