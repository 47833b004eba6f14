;; The tool `shapes` by hand: a component in text form, run as it is.
(component
  (core module $polygon
    (memory (export "memory") 1)
    (global $top (mut i32) (i32.const 1024))

    ;; Room for the outline: the canonical ABI asks for it before the call.
    (func (export "realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
      (local $at i32) (local $pages i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get $bytes)))
      (local.set $pages (i32.sub
        (i32.shr_u (i32.add (global.get $top) (i32.const 65535)) (i32.const 16)) (memory.size)))
      (if (i32.gt_s (local.get $pages) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then unreachable))))
      (local.get $at))

    ;; result<summary, flaw> at 16: the case; at 24: the flaw, or corners, area, center.x, center.y.
    (func (export "measure") (param $points i32) (param $count i32) (result i32)
      (local $a i32) (local $b i32) (local $index i32)
      (local $cross f64) (local $double f64) (local $x f64) (local $y f64)
      (i32.store8 (i32.const 16) (i32.const 1))
      (if (i32.lt_u (local.get $count) (i32.const 3))
        (then (i32.store8 (i32.const 24) (i32.const 0)) (return (i32.const 16))))
      (local.set $a (i32.add (local.get $points)
        (i32.shl (i32.sub (local.get $count) (i32.const 1)) (i32.const 4))))
      (loop $next
        (local.set $b (i32.add (local.get $points) (i32.shl (local.get $index) (i32.const 4))))
        (local.set $cross (f64.sub
          (f64.mul (f64.load (local.get $a)) (f64.load offset=8 (local.get $b)))
          (f64.mul (f64.load (local.get $b)) (f64.load offset=8 (local.get $a)))))
        (local.set $double (f64.add (local.get $double) (local.get $cross)))
        (local.set $x (f64.add (local.get $x)
          (f64.mul (f64.add (f64.load (local.get $a)) (f64.load (local.get $b))) (local.get $cross))))
        (local.set $y (f64.add (local.get $y)
          (f64.mul (f64.add (f64.load offset=8 (local.get $a)) (f64.load offset=8 (local.get $b)))
            (local.get $cross))))
        (local.set $a (local.get $b))
        (br_if $next (i32.lt_u
          (local.tee $index (i32.add (local.get $index) (i32.const 1))) (local.get $count))))
      (if (f64.eq (local.get $double) (f64.const 0))
        (then (i32.store8 (i32.const 24) (i32.const 1)) (return (i32.const 16))))
      (i32.store8 (i32.const 16) (i32.const 0))
      (i32.store (i32.const 24) (local.get $count))
      (f64.store (i32.const 32) (f64.abs (f64.div (local.get $double) (f64.const 2))))
      (f64.store (i32.const 40) (f64.div (local.get $x) (f64.mul (f64.const 3) (local.get $double))))
      (f64.store (i32.const 48) (f64.div (local.get $y) (f64.mul (f64.const 3) (local.get $double))))
      (i32.const 16)))
  (core instance $polygon (instantiate $polygon))

  (type $point_type (record (field "x" f64) (field "y" f64)))
  (export $point "point" (type $point_type))
  (type $summary_type (record (field "corners" u32) (field "area" f64) (field "center" $point)))
  (export $summary "summary" (type $summary_type))
  (type $flaw_type (enum "too-few-points" "flat"))
  (export $flaw "flaw" (type $flaw_type))
  (func (export "measure") (param "outline" (list $point)) (result (result $summary (error $flaw)))
    (canon lift (core func $polygon "measure")
      (memory (core memory $polygon "memory")) (realloc (core func $polygon "realloc")))))
