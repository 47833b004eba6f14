/* bcc asks whether the kernel has bpf(2). The probe of the runtime has tried it. */
#pragma once
#define CONFIG_BPF_SYSCALL 1
